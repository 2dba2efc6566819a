//! Table of cases: statements, the hop that they name, and contradictions with their controls.

use proptest::prelude::*;

use super::*;
use crate::{
    edge::{Layers, Refinement, refine},
    vocabulary::{Cause, Confidence, Side},
};

const AT: i64 = 1_787_392_862_000;
const DUR: u64 = 61_000;
const OPENED: i64 = AT - 61_000;

/// A session that the client's side ended without a Close frame, proven.
fn left() -> CloseRecord {
    let mut record = CloseRecord::new(
        "ann".to_owned(),
        "203.0.113.7".to_owned(),
        DUR,
        Cause::DownstreamClosed,
        Verdict::ClientLeft,
        Segment::Downstream,
        "c1".to_owned(),
        KernelSource::Tracepoint,
    );
    record.closed_by = Some(ClosedBy::Downstream);
    record.confidence = Some(Confidence::Proven);
    record.ray = Some("8c1f0000abcd1234-LHR".to_owned());
    record
}

fn with(verdict: Verdict, segment: Segment, closed_by: ClosedBy) -> CloseRecord {
    CloseRecord { verdict, segment, closed_by: Some(closed_by), ..left() }
}

fn statement(witness: Witness, closer: Closer) -> Statement {
    Statement {
        witness,
        start_ms: Some(OPENED - 40),
        end_ms: AT - 10,
        address: "203.0.113.7".parse().ok(),
        path: Some("/ws".to_owned()),
        ray: Some("8C1F0000ABCD1234".to_owned()),
        status: None,
        closer,
        values: "value=x".to_owned(),
    }
}

fn layers(statements: &[Statement]) -> Layers {
    let of = |witness| {
        let lines: Vec<_> =
            statements.iter().filter(|statement| statement.witness == witness).cloned().collect();
        (!lines.is_empty()).then(|| Reading { lines, ..Reading::default() })
    };
    Layers {
        logpush: of(Witness::Cloudflare),
        envoy: of(Witness::Envoy),
        haproxy: of(Witness::Haproxy),
        ..Layers::default()
    }
}

fn refined(record: &CloseRecord, statements: &[Statement]) -> Refinement {
    refine(&Ended { record, at_ms: AT }, &layers(statements))
}

#[test]
fn each_statement_has_its_hop() {
    use Closer::{Both, Downstream, Itself, TimedOut, Unstated, Upstream};
    use Witness::{Cloudflare, Envoy, Haproxy};
    for (statements, part) in [
        (&[(Cloudflare, Downstream)][..], Some(Part::LastMile)),
        (&[(Cloudflare, Itself)], Some(Part::Edge)),
        (&[(Cloudflare, Upstream)], Some(Part::BehindEdge)),
        (&[(Cloudflare, TimedOut)], None),
        (&[(Cloudflare, Both)], None),
        (&[(Cloudflare, Unstated)], None),
        (&[(Envoy, Downstream)], Some(Part::BeforeProxy)),
        (&[(Envoy, Itself)], Some(Part::Proxy)),
        (&[(Envoy, TimedOut)], None),
        (&[(Haproxy, Downstream)], Some(Part::BeforeProxy)),
        (&[(Haproxy, Itself)], Some(Part::Proxy)),
        // Two hops name the one between them, or exclude each other.
        (&[(Cloudflare, Upstream), (Envoy, Downstream)], Some(Part::Tunnel)),
        (&[(Cloudflare, Upstream), (Haproxy, Itself)], Some(Part::Proxy)),
        (&[(Cloudflare, Downstream), (Envoy, Downstream)], Some(Part::LastMile)),
        (&[(Cloudflare, Itself), (Haproxy, Downstream)], Some(Part::Edge)),
        (&[(Cloudflare, Downstream), (Envoy, Itself)], None),
    ] {
        let all: Vec<_> = statements.iter().map(|(witness, closer)| statement(*witness, *closer)).collect();
        let refined = refined(&left(), &all);
        assert_eq!(refined.part, part, "{statements:?}: {refined:?}");
        assert_eq!(refined.contradiction, None, "{statements:?}");
        assert_eq!(refined.confidence, part.map(|_| Confidence::Likely), "{statements:?}");
        assert_eq!(refined.statements.len(), statements.len());
    }
}

/// The control of each contradiction is the statement that agrees.
#[test]
fn a_statement_that_excludes_the_record_contradicts_it() {
    use Closer::{Downstream, Itself, TimedOut, Upstream};
    use Witness::{Cloudflare, Envoy, Haproxy};
    let killed = with(Verdict::ServeKilled, Segment::Serve, ClosedBy::Upstream);
    let dispatch = with(Verdict::DispatchDied, Segment::Dispatch, ClosedBy::Dispatch);
    let stalled = with(Verdict::ServeStalled, Segment::Serve, ClosedBy::Downstream);
    for (record, witness, closer, contradicts) in [
        (&killed, Cloudflare, Upstream, false),
        (&killed, Cloudflare, Downstream, true),
        (&killed, Cloudflare, Itself, true),
        (&killed, Envoy, Upstream, false),
        (&killed, Envoy, Downstream, true),
        (&killed, Haproxy, TimedOut, true),
        (&dispatch, Cloudflare, Upstream, false),
        (&dispatch, Cloudflare, Downstream, true),
        (&stalled, Cloudflare, Downstream, false),
        (&stalled, Cloudflare, Upstream, true),
        (&stalled, Cloudflare, TimedOut, false),
        (&left(), Cloudflare, Upstream, false),
        (&left(), Envoy, Downstream, false),
        (&left(), Envoy, Upstream, true),
        (&left(), Haproxy, Upstream, true),
    ] {
        let refined = refined(record, &[statement(witness, closer)]);
        let case = format!("{} {witness} {closer}: {refined:?}", record.verdict);
        assert_eq!(refined.contradiction.is_some(), contradicts, "{case}");
        if let Some(why) = refined.contradiction {
            assert!(
                why.contains("value=x") && why.contains("but the kernel of this host observed"),
                "{case}"
            );
            assert_eq!(refined.part, None, "{case}");
        }
    }
    let unseen = CloseRecord { kernel: KernelSource::Off, ..killed };
    let why = refined(&unseen, &[statement(Cloudflare, Downstream)]).contradiction.unwrap();
    assert!(why.contains("but t3-dispatch observed that serve"), "{why}");
}

#[test]
fn a_close_frame_or_a_later_end_decides_nothing() {
    let late = Statement { end_ms: AT + 5_000, ..statement(Witness::Cloudflare, Closer::Downstream) };
    let soon = Statement { end_ms: AT + 1_900, ..late.clone() };
    let killed = with(Verdict::ServeKilled, Segment::Serve, ClosedBy::Upstream);
    let closed = CloseRecord { ws_from: Some(Side::Up), ws_code: Some(1000), ..killed.clone() };
    for (name, record, statement, contradicts) in [
        ("control", &killed, &soon, true),
        ("a later event", &killed, &late, false),
        ("serve's Close frame", &closed, &soon, false),
    ] {
        let refined = refined(record, std::slice::from_ref(statement));
        assert_eq!(refined.contradiction.is_some(), contradicts, "{name}: {refined:?}");
        assert_eq!(refined.part, None, "{name}");
    }
    let tab = CloseRecord {
        ws_from: Some(Side::Down),
        ..with(Verdict::ClientClosed, Segment::Downstream, ClosedBy::Downstream)
    };
    for closer in Closer::ALL {
        let refined = refined(&tab, &[statement(Witness::Cloudflare, *closer)]);
        assert_eq!((refined.part, refined.contradiction), (None, None), "{closer}");
    }
}

#[test]
fn other_evidence_and_a_statement_must_agree() {
    // The node of Traefik does not acknowledge.
    let silent = CloseRecord {
        down_end: Some(crate::vocabulary::LegEnd::Timeout),
        ..with(Verdict::ClientVanished, Segment::Downstream, ClosedBy::Downstream)
    };
    assert_eq!(refined(&silent, &[]).part, Some(Part::Traefik));
    let behind = refined(&silent, &[statement(Witness::Cloudflare, Closer::Upstream)]);
    assert_eq!(behind.part, Some(Part::Traefik));
    let browser = refined(&silent, &[statement(Witness::Cloudflare, Closer::Downstream)]);
    assert_eq!(browser.part, None);
    assert!(browser.unresolved.unwrap().contains("points to traefik"));
}

#[test]
fn the_right_line_is_found_or_none() {
    let record = left();
    let ended = Ended { record: &record, at_ms: AT };
    let cloudflare = statement(Witness::Cloudflare, Closer::Downstream);
    let envoy = Statement { ray: None, ..statement(Witness::Envoy, Closer::Downstream) };
    let change = |base: &Statement, change: &dyn Fn(&mut Statement)| {
        let mut other = base.clone();
        change(&mut other);
        other
    };
    let other_ray = change(&cloudflare, &|line| line.ray = Some("8c1f0000abcd9999".to_owned()));
    let reused = change(&cloudflare, &|line| line.start_ms = Some(OPENED - 3_600_000));
    let raced = change(&cloudflare, &|line| line.closer = Closer::Upstream);
    for (name, lines, found) in [
        ("by ray in the other case, without the data centre", vec![cloudflare.clone()], "ray"),
        ("another ray", vec![other_ray], "none"),
        ("a ray that was used again", vec![cloudflare.clone(), reused.clone()], "ray"),
        ("only the other use of the ray", vec![reused], "none"),
        ("a line read twice", vec![cloudflare.clone(), cloudflare.clone()], "ray"),
        ("two records with one ray", vec![cloudflare.clone(), raced], "2"),
        ("a page", vec![change(&cloudflare, &|line| line.path = Some("/".to_owned()))], "none"),
        ("no path in the record", vec![change(&cloudflare, &|line| line.path = None)], "ray"),
        ("Cloudflare is not joined by time", vec![change(&cloudflare, &|line| line.ray = None)], "none"),
        ("Envoy by address and time", vec![envoy.clone()], "time"),
        (
            "from another address",
            vec![change(&envoy, &|line| line.address = "198.51.100.4".parse().ok())],
            "none",
        ),
        ("three seconds apart", vec![change(&envoy, &|line| line.start_ms = Some(OPENED - 3_000))], "none"),
        ("three seconds longer", vec![change(&envoy, &|line| line.end_ms = AT + 3_000)], "none"),
        ("a refused upgrade", vec![change(&envoy, &|line| line.status = Some(503))], "none"),
        ("two that fit", vec![envoy.clone(), change(&envoy, &|line| line.end_ms = AT)], "2"),
    ] {
        let result = match find(&ended, &lines) {
            Found::One { by_ray: true, .. } => "ray".to_owned(),
            Found::One { by_ray: false, .. } => "time".to_owned(),
            Found::Ambiguous(count) => count.to_string(),
            Found::Nothing => "none".to_owned(),
        };
        assert_eq!(result, found, "{name}");
    }
}

#[test]
fn a_proxy_that_states_its_client_clears_the_proxy_for_the_last_mile() {
    let record = left();
    let healthy = Layers {
        cloudflared: Some(Reading::default()),
        probe: Some(crate::probe::Attribution {
            place: crate::probe::attribution::Place::LastMile,
            sentence: "the legs".to_owned(),
            next: String::new(),
        }),
        ..layers(&[statement(Witness::Envoy, Closer::Downstream)])
    };
    let ended = Ended { record: &record, at_ms: AT };
    assert_eq!(refine(&ended, &healthy).part, Some(Part::LastMile));
    let silent = Layers { envoy: None, ..healthy };
    assert_eq!(refine(&ended, &silent).part, None);
}

proptest! {
    #[test]
    fn any_statement_leaves_the_verdict_and_never_proves_a_hop(
        verdict in prop::sample::select(Verdict::ALL), segment in prop::sample::select(Segment::ALL),
        closed_by in prop::option::of(prop::sample::select(ClosedBy::ALL)),
        witness in prop::sample::select(Witness::ALL), closer in prop::sample::select(Closer::ALL),
        end in -70_000_i64..70_000, frame: bool,
    ) {
        let record = CloseRecord {
            closed_by,
            ws_from: frame.then_some(Side::Down),
            ..with(verdict, segment, ClosedBy::Both)
        };
        let refined = refined(&record, &[Statement { end_ms: AT + end, ..statement(witness, closer) }]);
        prop_assert!(refined.confidence != Some(Confidence::Proven));
        prop_assert!(refined.part.is_none() || segment == Segment::Downstream);
        prop_assert!(refined.part.is_none() || refined.contradiction.is_none());
        prop_assert!(refined.contradiction.is_none() || !frame);
    }
}
