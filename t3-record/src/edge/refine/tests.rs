//! Table of cases: observations, deciding rule, named hop. The second half tries to mislead the
//! rules.

use proptest::prelude::*;

use super::*;
use crate::{
    How,
    edge::{cloudflared, envoy, haproxy, logpush, traefik},
    evidence::Burst,
    probe::attribution::Place,
    vocabulary::{Cause, KernelSource, LegEnd, Segment, Side, Verdict},
};

/// Time of the record.
const AT: i64 = 1_787_392_863_000;
const DUR: u64 = 60_000;
const OPENED: i64 = AT - 60_000;
const IP: &str = "203.0.113.7";

fn close(conn: &str, user: &str, ip: &str, verdict: Verdict) -> CloseRecord {
    let mut record = CloseRecord::new(
        user.to_owned(),
        ip.to_owned(),
        DUR,
        Cause::DownstreamClosed,
        verdict,
        Segment::Downstream,
        conn.to_owned(),
        KernelSource::Tracepoint,
    );
    record.down_end = Some(LegEnd::FinIn);
    record.ray = Some("8c1f-LHR".to_owned());
    record
}

fn left() -> CloseRecord {
    close("c1", "ann", IP, Verdict::ClientLeft)
}

fn line(start_ms: i64, duration_ms: u64, count: u64) -> AccessLine {
    AccessLine {
        first_address: IP.parse().ok(),
        client_host: IP.to_owned(),
        start_ms,
        start_exact: true,
        duration_ms,
        status: Some(0),
        method: "GET".to_owned(),
        path: "/ws".to_owned(),
        router: None,
        service_url: None,
        request_count: Some(count),
        ray: None,
    }
}

fn ours() -> AccessLine {
    AccessLine { ray: Some("8c1f-LHR".to_owned()), ..line(OPENED, DUR, 4711) }
}

fn tunnel(ms_after: i64, text: &str) -> TunnelLine {
    let at_ms = AT + ms_after;
    TunnelLine { at_ms, ..cloudflared::parse(&format!("2026-08-22T10:01:02Z {text}")).unwrap() }
}

const LOST: &str = r#"ERR Serve tunnel error error="x" connIndex=2"#;
const REGISTERED: &str = "INF Registered tunnel connection connIndex=2";
const REFUSED: &str = r#"ERR Request failed error="Unable to reach the origin service. The service may be down: dial tcp 192.0.2.20:443: connect: connection refused" connIndex=2 dest=https://t3.example.org/ws event=0 type=ws"#;

fn reading<T>(lines: Vec<T>) -> Option<Reading<T>> {
    Some(Reading { lines, ..Reading::default() })
}

fn probe(place: Place) -> Option<Attribution> {
    Some(Attribution { place, sentence: "the legs".to_owned(), next: "a step".to_owned() })
}

/// All hops are healthy, and this session ended.
fn well() -> Layers {
    Layers {
        traefik: reading(vec![ours()]),
        cloudflared: reading(Vec::new()),
        probe: probe(Place::LastMile),
        ..Layers::default()
    }
}

fn others() -> Vec<(CloseRecord, i64)> {
    vec![(close("c2", "bob", "198.51.100.4", Verdict::ClientLeft), AT - 400)]
}

fn decided(record: &CloseRecord, layers: &Layers) -> (&'static str, Option<Part>) {
    let ended = Ended { record, at_ms: AT };
    let indicators = Indicators::of(&ended, layers);
    let rule = rules::RULES.iter().find(|(_, rule)| rule(&indicators).is_some()).map_or("", |(name, _)| name);
    let refined = refine(&ended, layers);
    assert_eq!(refined.part.is_some(), refined.unresolved.is_none());
    assert_eq!(refined.part.is_some(), refined.confidence == Some(Confidence::Likely));
    assert!(refined.reasons.iter().chain(&refined.unresolved).all(|text| !text.is_empty()));
    (rule, refined.part)
}

fn with(change: impl FnOnce(&mut CloseRecord)) -> CloseRecord {
    let mut record = left();
    change(&mut record);
    record
}

/// A Close 1000 of a client that had received nothing.
fn gave_up() -> CloseRecord {
    with(|record| {
        record.verdict = Verdict::PathStalled;
        record.how = Some(How::HeartbeatLost);
        record.ws_from = Some(Side::Down);
    })
}

#[test]
fn each_rule_decides_its_case() {
    let tunnel_at =
        |lines: &[(i64, &str)]| reading(lines.iter().map(|(at, text)| tunnel(*at, text)).collect());
    let restarted =
        || reading(vec![ours(), line(OPENED - 5_000, 1, 4600), line(AT + 900, 1, 3), line(AT + 950, 1, 4)]);
    let mut without_case: Vec<_> = rules::RULES.iter().map(|(name, _)| *name).collect();
    let (traefik, cut, lost) = (Some(Part::Traefik), Some(Part::Tunnel), tunnel_at(&[(-1_000, LOST)]));
    for (name, record, layers, rule, part) in [
        ("serve's fault", with(|r| r.segment = Segment::Serve), well(), "elsewhere", None),
        ("a closed tab", with(|r| r.verdict = Verdict::ClientClosed), well(), "close_frame_seen", None),
        ("a broken client", with(|r| r.verdict = Verdict::ClientProtocol), well(), "close_frame_seen", None),
        (
            "Traefik's node is silent, and nothing else was asked",
            with(|r| (r.verdict, r.down_end) = (Verdict::ClientVanished, Some(LegEnd::Timeout))),
            Layers::default(),
            "node",
            traefik,
        ),
        (
            "loss on our own leg",
            with(|r| (r.verdict, r.how) = (Verdict::PathStalled, Some(How::Loss))),
            well(),
            "node",
            traefik,
        ),
        (
            "tunnel and Traefik at once",
            left(),
            Layers {
                cloudflared: tunnel_at(&[(-1_000, LOST), (500, REFUSED)]),
                neighbours: others(),
                ..well()
            },
            "contradiction",
            None,
        ),
        (
            "a tunnel connection and two people",
            left(),
            Layers { cloudflared: lost.clone(), neighbours: others(), ..well() },
            "tunnel_lost",
            cut,
        ),
        (
            "the same, and nobody else was asked",
            left(),
            Layers { cloudflared: lost.clone(), neighbours: others(), ..Layers::default() },
            "tunnel_lost",
            cut,
        ),
        (
            "cloudflared taken down",
            left(),
            Layers {
                cloudflared: tunnel_at(&[(-800, "INF Unregistered tunnel connection connIndex=0")]),
                neighbours: others(),
                ..well()
            },
            "tunnel_lost",
            cut,
        ),
        (
            "a tunnel connection and one person",
            left(),
            Layers { cloudflared: lost.clone(), ..well() },
            "tunnel_lost_alone",
            None,
        ),
        (
            "a tunnel connection, and a close frame that came through",
            gave_up(),
            Layers { cloudflared: lost, neighbours: others(), ..well() },
            "tunnel_lost_alone",
            None,
        ),
        (
            "nobody listens at Traefik's",
            left(),
            Layers { cloudflared: tunnel_at(&[(2_000, REFUSED)]), ..well() },
            "traefik_refused",
            traefik,
        ),
        (
            "Traefik was restarted",
            left(),
            Layers { traefik: restarted(), neighbours: others(), ..well() },
            "traefik_restarted",
            traefik,
        ),
        (
            "the probe's way through Cloudflare broke",
            left(),
            Layers { probe: probe(Place::Cloudflare), neighbours: others(), ..well() },
            "probe_broke",
            cut,
        ),
        (
            "the probe's ways broke",
            left(),
            Layers { probe: probe(Place::Edge), neighbours: others(), ..well() },
            "probe_broke",
            traefik,
        ),
        ("others, and no reason", left(), Layers { neighbours: others(), ..well() }, "shared", None),
        ("a burst, and no reason", with(|r| r.verdict = Verdict::EdgeBurst), well(), "shared", None),
        (
            "the probe broke some time",
            left(),
            Layers { probe: probe(Place::Cloudflare), ..well() },
            "probe_broke_alone",
            None,
        ),
        (
            "the machine's network broke",
            left(),
            Layers { probe: probe(Place::Devvm), ..well() },
            "probe_broke_alone",
            None,
        ),
        ("nothing is left", left(), well(), "last_mile", Some(Part::LastMile)),
        ("nothing is left for a watchdog", gave_up(), well(), "last_mile", Some(Part::LastMile)),
        ("nothing was asked", left(), Layers::default(), "open", None),
    ] {
        assert_eq!(decided(&record, &layers), (rule, part), "{name}");
        without_case.retain(|name| *name != rule);
    }
    assert!(without_case.is_empty(), "no case of {without_case:?}");
}

#[test]
fn every_rule_has_its_row_of_the_page() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/EDGE-LOGS.md")).unwrap();
    let rows: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|row| row.0).collect();
    let names: Vec<_> = rules::RULES.iter().map(|(name, _)| *name).collect();
    let first = rows.iter().position(|row| *row == names[0]).unwrap();
    assert_eq!(rows[first..first + names.len()], names);
}

#[test]
fn proximity_is_not_a_cause() {
    let far = |text| reading(vec![tunnel(-40_000, text)]);
    let none_of = |name: &str, layers: Layers| {
        for record in [left(), gave_up(), with(|r| r.verdict = Verdict::EdgeBurst)] {
            assert_eq!(decided(&record, &layers).1, None, "{name}: {:?}", record.verdict);
        }
    };
    none_of("a tunnel connection lost 40 s before", Layers { cloudflared: far(LOST), ..well() });
    none_of("the same, others cut now", Layers { cloudflared: far(LOST), neighbours: others(), ..well() });
    none_of("a tunnel connection registered again", Layers { cloudflared: far(REGISTERED), ..well() });
    none_of(
        "another request was refused",
        Layers {
            cloudflared: reading(vec![tunnel(500, &REFUSED.replace("/ws", "/grafana"))]),
            neighbours: others(),
            ..well()
        },
    );
    none_of(
        "a request that the browser left",
        Layers {
            cloudflared: reading(vec![tunnel(
                0,
                r#"ERR Request failed error="Incoming request ended abruptly: context canceled" dest=https://t3/ws type=ws"#,
            )]),
            neighbours: others(),
            ..well()
        },
    );
    let both = || line(AT + 900, 1, 3);
    none_of(
        "one small number may be another Traefik",
        Layers { traefik: reading(vec![ours(), both()]), neighbours: others(), ..well() },
    );
}

#[test]
fn a_silent_log_proves_nothing_unless_all_of_it_was_read() {
    for layers in [
        Layers { cloudflared: None, ..well() },
        Layers { traefik: None, ..well() },
        Layers { probe: None, ..well() },
        Layers { probe: probe(Place::Unknown), ..well() },
        Layers { traefik: reading(Vec::new()), ..well() },
        Layers { traefik: reading(vec![ours(), line(AT + 900, 1, 3)]), ..well() },
        Layers { traefik: reading(vec![AccessLine { status: Some(500), ..ours() }]), ..well() },
        Layers { cloudflared: Some(Reading { unread: 1, ..Reading::default() }), ..well() },
        Layers { cloudflared: Some(Reading { cut: true, ..Reading::default() }), ..well() },
    ] {
        assert_eq!(decided(&left(), &layers), ("open", None), "{layers:?}");
    }
}

#[test]
fn who_counts_as_cut_with_this_one() {
    let bob = |verdict| close("c2", "bob", "198.51.100.4", verdict);
    let lost = || Layers { cloudflared: reading(vec![tunnel(-1_000, LOST)]), ..well() };
    let mut spoke = bob(Verdict::ClientLeft);
    spoke.ws_from = Some(Side::Down);
    let mut serve = bob(Verdict::ServeKilled);
    serve.segment = Segment::Serve;
    let phone = close("c2", "ann", "198.51.100.4", Verdict::ClientReset);
    let tab = close("c2", "ann", IP, Verdict::ClientLeft);
    for (name, neighbour, at, counts) in [
        ("another person", bob(Verdict::ClientReset), AT + 1_000, true),
        ("the same person from elsewhere", phone, AT, true),
        ("a second tab may hang on the same Wi-Fi", tab, AT, false),
        ("itself", left(), AT, false),
        ("three seconds apart", bob(Verdict::ClientLeft), AT - 3_000, false),
        ("a browser that sent a Close frame", spoke, AT, false),
        ("serve's fault", serve, AT, false),
        ("a closed tab", bob(Verdict::ClientClosed), AT, false),
    ] {
        let layers = Layers { neighbours: vec![(neighbour, at)], ..lost() };
        assert_eq!(decided(&left(), &layers).1 == Some(Part::Tunnel), counts, "{name}");
    }
}

#[test]
fn a_burst_has_counted_its_others_itself() {
    let burst = with(|r| {
        r.verdict = Verdict::EdgeBurst;
        r.burst = Some(Burst { sessions: 12, users: 4 });
    });
    let layers = Layers { cloudflared: reading(vec![tunnel(-1_000, LOST)]), ..Layers::default() };
    assert_eq!(decided(&burst, &layers), ("tunnel_lost", Some(Part::Tunnel)));
}

#[test]
fn a_shut_window_is_not_the_node_s() {
    let shut = with(|r| {
        (r.verdict, r.down_end, r.how) =
            (Verdict::ClientVanished, Some(LegEnd::Timeout), Some(How::ZeroWindow));
    });
    assert_eq!(decided(&shut, &Layers::default()).1, None);
}

#[test]
fn the_right_line_is_found_or_none() {
    let record = left();
    let ended = Ended { record: &record, at_ms: AT };
    let clf = |start: i64, duration| AccessLine { start_exact: false, ..line(start, duration, 1) };
    let by_ray = |start, duration| AccessLine { ray: record.ray.clone(), ..line(start, duration, 1) };
    let other_ray = AccessLine { ray: Some("other-LHR".to_owned()), ..line(OPENED, DUR, 1) };
    let elsewhere = AccessLine { first_address: "198.51.100.4".parse().ok(), ..line(OPENED, DUR, 1) };
    let refused = AccessLine { status: Some(499), ..line(OPENED, DUR, 1) };
    let page = AccessLine { path: "/".to_owned(), ..line(OPENED, DUR, 1) };
    let posted = AccessLine { method: "POST".to_owned(), ..line(OPENED, DUR, 1) };
    for (name, lines, found) in [
        ("by ray, however long it took", vec![line(OPENED, DUR, 2), by_ray(OPENED, DUR + 9_000)], Some(1)),
        ("one ray twice: the one that fits", vec![by_ray(OPENED - 9_000, DUR), by_ray(OPENED, DUR)], Some(1)),
        ("one ray twice, both fit", vec![by_ray(OPENED - 100, DUR), by_ray(OPENED, DUR)], None),
        ("one ray twice, none fits", vec![by_ray(OPENED - 9_000, DUR), by_ray(OPENED + 9_000, DUR)], None),
        ("another ray is another session", vec![other_ray.clone()], None),
        ("another ray does not confuse", vec![other_ray, line(OPENED, DUR, 2)], Some(1)),
        ("by time", vec![line(OPENED - 1_900, DUR + 1_900, 1)], Some(0)),
        ("too early", vec![line(OPENED - 2_100, DUR, 1)], None),
        ("too late", vec![line(OPENED + 2_100, DUR, 1)], None),
        ("too long", vec![line(OPENED, DUR + 2_100, 1)], None),
        ("cut to the second", vec![clf(OPENED - 2_900, DUR)], Some(0)),
        ("cut, and still too early", vec![clf(OPENED - 3_100, DUR)], None),
        ("two that fit", vec![line(OPENED, DUR, 1), line(OPENED + 500, DUR - 500, 2)], None),
        ("one that was read twice", vec![line(OPENED, DUR, 1), line(OPENED, DUR, 1)], Some(0)),
        ("no such session", vec![elsewhere, refused, page, posted], None),
    ] {
        let join = find(&ended, &lines);
        let at = join.line().and_then(|line| lines.iter().position(|other| other == line));
        assert_eq!(at, found, "{name}: {join:?}");
        if name.contains("both fit") || name == "two that fit" {
            assert_eq!(join, Join::Ambiguous(2));
        }
    }
    let addressless = close("c1", "ann", "unknown", Verdict::ClientLeft);
    let without = AccessLine { first_address: None, ..line(OPENED, DUR, 1) };
    assert_eq!(find(&Ended { record: &addressless, at_ms: AT }, &[without]), Join::Nothing);
}

#[test]
fn each_layer_explains_its_lines() {
    let layers = Layers {
        traefik: Some(Reading { lines: vec![ours()], unread: 2, sample: None, cut: true }),
        cloudflared: reading(vec![tunnel(-1_200, LOST)]),
        ..well()
    };
    let reasons = refine(&Ended { record: &left(), at_ms: AT }, &layers).reasons.join("\n");
    assert_eq!(
        reasons,
        "Traefik's log: line of the session, found by its Cf-Ray: duration 60.0 s\n\
         Traefik's log: 2 lines cannot be parsed\n\
         Traefik's log: incomplete, too many lines\n\
         cloudflared's log: \"Serve tunnel error\" of connection 2, 1.2 s before the record\n\
         probe: the legs"
    );
}

proptest! {
    #[test]
    fn any_layers_have_a_result_and_only_a_session_cut_downstream_has_a_hop(
        verdict in prop::sample::select(Verdict::ALL),
        segment in prop::sample::select(Segment::ALL),
        spoke: bool, alone: bool, at in -100_000_i64..100_000,
        texts in prop::collection::vec(prop::sample::select(vec![LOST, REGISTERED, REFUSED]), 0..3),
        place in prop::option::of(prop::sample::select(Place::ALL)),
        lines in prop::collection::vec((-5_000_i64..5_000, 0_u64..70_000, 0_u64..9_999), 0..4),
    ) {
        let mut record = close("c1", "ann", IP, verdict);
        record.segment = segment;
        record.ws_from = spoke.then_some(Side::Down);
        let layers = Layers {
            traefik: reading(lines.iter().map(|(start, length, count)| line(OPENED + start, *length, *count)).collect()),
            cloudflared: reading(texts.iter().map(|text| tunnel(at, text)).collect()),
            probe: place.and_then(probe),
            neighbours: if alone { Vec::new() } else { others() },
            ..Layers::default()
        };
        let (rule, part) = decided(&record, &layers);
        prop_assert!(!rule.is_empty());
        if part.is_some() {
            prop_assert_eq!(segment, Segment::Downstream);
            prop_assert!(!matches!(verdict, Verdict::ClientClosed | Verdict::ClientProtocol));
        }
        if part == Some(Part::Tunnel) {
            prop_assert!(!alone && !spoke);
        }
        if part == Some(Part::LastMile) {
            prop_assert!(texts.is_empty() && place == Some(Place::LastMile) && alone);
        }
    }
}

#[test]
fn the_lines_of_the_page_are_read() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/EDGE-LOGS.md")).unwrap();
    let (mut access, mut tunnels) = (Reading::default(), Reading::default());
    let mut statements = Vec::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("    ")) {
        access.take(line, traefik::parse(line));
        tunnels.take(line, cloudflared::parse(line));
        statements.push(logpush::parse(line));
        statements.push(envoy::parse(line));
        statements.push(haproxy::parse(line));
    }
    let closers: Vec<_> = statements.iter().flatten().map(|statement| statement.closer).collect();
    use crate::edge::Closer::{Downstream, Itself};
    assert_eq!(closers, [Downstream, Itself, Downstream, Downstream, Downstream, Downstream]);
    assert_eq!((access.unread, tunnels.unread), (0, 0), "{:?} {:?}", access.sample, tunnels.sample);
    assert!(
        access.lines.len() >= 4 && tunnels.lines.len() >= 10,
        "{} {}",
        access.lines.len(),
        tunnels.lines.len()
    );
}
