//! Rules for every page: it has the verdict and the confidence of the record, and names the
//! deciding evidence.

mod edge;
mod journal;
mod memory;
mod restart;
mod zone;

use std::{collections::BTreeSet, path::Path};

use proptest::{collection::vec, option, prelude::*, sample::select};
use t3_record::{
    Cause, Chain, CloseRecord, ClosedBy, Confidence, How, KernelSource, OpenRecord, Segment, Side, Verdict,
    chain::Event,
    evidence::{Burst, Fate},
    value::Percent,
};

use super::{
    ExplainInput, Page,
    facts::{Context, Timed},
    find::Selector,
    journal::Candidates,
    not_found,
};
use crate::present::{answer, text::Paint};

/// Words that express doubt.
const HEDGES: [&str; 7] = ["likely", "probably", "perhaps", "seems", "might", "maybe", "not proven"];

fn wall(secs: u64) -> String {
    format!("2026-07-27 {:02}:{:02}:{:02}", secs / 3600 % 24, secs / 60 % 60, secs % 60)
}

fn text(facts: &ExplainInput) -> String {
    Page::of(facts, &[], wall).text(Paint { colour: false }, 110, wall)
}

/// A record from verdict, mechanism, segment and confidence, then `key=value` pairs.
fn record(words: &str) -> CloseRecord {
    let mut words = words.split(' ');
    let mut next = || words.next().unwrap();
    let (verdict, how, segment, confidence) = (next(), next(), next(), next());
    let rest: Vec<&str> = words.collect();
    let line = format!(
        "ws close user=ann ip=192.0.2.7 dur_ms=5000 cause=graceful verdict={verdict} segment={segment} conn=c1 kernel=tracepoint how={how} \
         confidence={confidence} {}",
        rest.join(" ")
    );
    CloseRecord::from_line(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Every result of the rules: record, text in the answer, text in the evidence.
const ENDS: &[(&str, &str, &str)] = &[
    (
        "client_closed ws_close:1001 downstream proven hb_n=3",
        "client closed the session itself, with Close 1001",
        "Close 1001",
    ),
    ("client_closed ws_close:4001 downstream proven", "Close 4001", "no heartbeat was unanswered"),
    (
        "client_closed ws_close downstream proven hb_n=3",
        "Close without a code",
        "heartbeats had been answered",
    ),
    (
        "client_closed ws_close:1000 downstream proven ws_from=down ws_reason=bye",
        "reason \"bye\"",
        "Close 1000",
    ),
    (
        "client_closed ws_close:1000 downstream likely hb_by=none",
        "Likely: ann's client closed the session itself, with Close 1000 (normal); no heartbeat was recognised",
        "a stall that ended in the client's watchdog would look the same",
    ),
    (
        "client_closed ws_close:1000 downstream likely hb_n=9 lag_ms=900",
        "its heartbeats had been answered",
        "t3-dispatch was late in that time",
    ),
    (
        "client_closed ws_close:1000 downstream likely hb_n=9 pause_ms=900",
        "its heartbeats had been answered",
        "The host did not run for part of that time",
    ),
    (
        "client_closed ws_close:1000 downstream proven hb_n=9 hb_period_ms=1000 hb_wait_ms=4000 up_silent_ms=300",
        "serve sent other messages, although heartbeats were unanswered",
        "Close 1000",
    ),
    (
        "client_closed ws_close:1001 downstream proven hb_n=9 hb_period_ms=1000 hb_wait_ms=4000 up_silent_ms=5000",
        "its last heartbeats were unanswered",
        "Close 1001",
    ),
    (
        "client_closed simultaneous none proven",
        "Both ends closed at the same time",
        "before either saw the other's close",
    ),
    (
        "client_left fin downstream proven",
        "client, or a hop between it and this host, ended the connection",
        "FIN on the downstream leg (kernel event), no Close frame before it",
    ),
    (
        "client_left fin downstream proven dur_ms=0",
        "(FIN) before the session opened.",
        "FIN on the downstream leg (kernel event)",
    ),
    ("client_left fin downstream likely", "Likely: ann's client, or a hop", "its FIN was not captured"),
    (
        "client_left half_close downstream proven",
        "only its sending direction",
        "the other direction stayed open",
    ),
    ("client_left mid_frame downstream proven", "within a message", "inside a frame"),
    (
        "client_reset rst downstream proven",
        "client, or a hop between it and this host, reset the connection (RST)",
        "RST on the downstream leg (kernel event)",
    ),
    (
        "client_vanished vanished downstream proven",
        "keepalive probes were unanswered",
        "downstream leg timed out while idle",
    ),
    ("client_vanished loss downstream proven down_retrans=9", "never acknowledged", "retransmissions: 9"),
    ("client_vanished zero_window downstream proven", "stopped reading", "zero window"),
    ("client_vanished unreach downstream proven", "became unreachable", "unreachable"),
    (
        "path_stalled heartbeat_lost downstream likely hb_gap_ms=12000",
        "Likely: The path between",
        "12.0s before the end",
    ),
    (
        "path_stalled heartbeat_lost downstream likely closed_by=upstream hb_wait_ms=30000 hb_by=ping",
        "it answered no ping of serve for 30.0s, and serve closed the session",
        "a ping of serve was unanswered for 30.0s",
    ),
    ("path_stalled loss downstream likely down_retrans=7", "segments were lost", "retransmissions: 7"),
    ("path_stalled zero_window downstream likely", "the client did not read them", "zero window"),
    (
        "path_stalled backlog downstream likely up_queued=786432",
        "replies waited behind data that the client's line was too slow for",
        "768.0 KiB of serve's data waited for the client's line",
    ),
    (
        "client_protocol protocol downstream proven",
        "client violated the WebSocket protocol",
        "RFC 6455 forbids were received on the downstream leg",
    ),
    (
        "edge_burst burst downstream likely burst=20/5",
        "A component shared by several users",
        "20 sessions of 5 users",
    ),
    (
        "serve_closed ws_close:1011 serve proven peer_exit=alive",
        "serve closed the session, with Close 1011",
        "received on the upstream leg",
    ),
    (
        "serve_closed ws_close:1012 serve proven peer_exit=alive killed_by=systemd[1]",
        "systemd[1] had sent its process, which is alive, a signal to stop",
        "received on the upstream leg",
    ),
    (
        "serve_left fin serve proven peer_exit=alive",
        "without a Close frame; its process is alive",
        "FIN on the upstream leg (kernel event)",
    ),
    ("serve_left fin serve likely", "Likely: ann's serve ended", "whether its process is alive is unknown"),
    (
        "serve_left half_close serve proven",
        "only its sending direction",
        "FIN on the upstream leg (kernel event)",
    ),
    ("serve_left mid_frame serve proven", "within a message", "inside a frame"),
    (
        "serve_left handshake_eof serve proven",
        "before it answered the upgrade",
        "before its reply to the upgrade",
    ),
    ("serve_left unreach serve likely", "became unreachable", "unreachable"),
    (
        "serve_reset rst serve proven peer_exit=alive",
        "reset the connection (RST); its process is alive",
        "RST on the upstream leg (kernel event)",
    ),
    (
        "serve_reset rst devvm likely peer_exit=alive",
        "reset the connection (RST), or a firewall of this host did; its process is alive",
        "RST on the upstream leg (kernel event)",
    ),
    ("serve_reset rst serve proven dur_ms=0", "instead of a reply to the upgrade", "RST on the upstream leg"),
    ("serve_reset handshake_eof serve likely", "instead of a reply to the upgrade", "before its reply"),
    (
        "serve_exited exit:0 serve proven peer_comm=node peer_pid=7",
        "exited with status 0 (regular exit)",
        "serve process node[7] exited with status 0 (kernel event)",
    ),
    (
        "serve_exited exit:1 serve proven killed_by=systemd[1]",
        "status 1 (error); systemd[1] had sent it a signal",
        "serve process exited with status 1 (kernel event)",
    ),
    (
        "serve_killed signal:9 serve proven killed_by=earlyoom[8]",
        "killed by SIGKILL (9), sent by earlyoom[8]",
        "serve process killed by SIGKILL (9) (kernel event)",
    ),
    (
        "serve_oom oom serve proven mem_max=4294967296",
        "OOM killer; the limit of its cgroup is 4.0 GiB",
        "OOM killer chose",
    ),
    ("serve_oom oom devvm proven", "the whole host was out of memory", "OOM killer chose"),
    (
        "serve_stalled stall serve proven hb_wait_ms=9000 psi_mem=0.0",
        "unanswered for 9.0s, and the client gave up. Pressure does not explain",
        "unanswered for 9.0s",
    ),
    ("serve_stalled stall serve proven hb_wait_ms=9000", "Pressure was not measured", "unanswered for 9.0s"),
    (
        "serve_stalled stall devvm proven hb_wait_ms=9000 psi_io=91.0",
        "Pressure explains it: PSI some of serve's cgroup was IO 91%",
        "unanswered for 9.0s",
    ),
    (
        "serve_stalled stall devvm likely hb_wait_ms=9000 host_psi_mem=91.0",
        "Pressure explains it: host PSI some was memory 91%",
        "The late reply is certain",
    ),
    (
        "serve_stalled stall serve proven hb_by=rhythm hb_wait_ms=9000 hb_period_ms=5000",
        "unanswered for 9.0s, and the client gave up",
        "(a small message every 5.0s)",
    ),
    (
        "serve_stalled loss devvm likely up_retrans=5",
        "this host lost the segments, as a firewall does",
        "data on the upstream leg was lost or not acknowledged (retransmissions: 5)",
    ),
    (
        "serve_stalled zero_window serve proven",
        "read nothing until the TCP timeout",
        "the upstream leg read nothing",
    ),
    ("serve_refused refused serve proven dur_ms=0", "Connection to ann's serve refused", "ECONNREFUSED"),
    (
        "client_closed false_alarm downstream likely hb_n=3 hb_gap_ms=5010",
        "closed a healthy session",
        "in place of the next one",
    ),
    (
        "serve_refused foreign_listener devvm proven dur_ms=0 peer_uid=1002",
        "belongs to another user (uid 1002)",
        "belongs to uid 1002",
    ),
    ("serve_refused foreign_listener devvm likely dur_ms=0", "belongs to an unknown user", "is not known"),
    ("serve_refused other_address serve proven dur_ms=0", "listens on another address", "on another address"),
    (
        "serve_refused refused devvm likely dur_ms=0",
        "a firewall of this host rejected it",
        "a socket listens on it",
    ),
    ("serve_timeout loss devvm likely dur_ms=0", "this host dropped it", "no accept queue was full"),
    ("serve_refused unreach serve proven dur_ms=0", "unreachable at its address", "unreachable"),
    ("serve_timeout connect_timeout serve proven dur_ms=0", "its listen queue was full", "never accepted"),
    (
        "serve_timeout handshake_timeout devvm proven dur_ms=0",
        "never answered the upgrade. The session never opened. Pressure explains it",
        "did not answer the upgrade",
    ),
    (
        "serve_timeout handshake_timeout serve likely dur_ms=0",
        "Likely: ann's serve accepted the connection",
        "The client left before",
    ),
    ("serve_rejected status:401 serve proven dur_ms=0", "status 401", "status 401"),
    (
        "serve_protocol bad_accept serve proven dur_ms=0",
        "a wrong Sec-WebSocket-Accept",
        "a wrong Sec-WebSocket-Accept",
    ),
    ("serve_protocol garbage serve proven dur_ms=0", "not HTTP", "not HTTP"),
    (
        "serve_protocol protocol serve proven",
        "violated the WebSocket protocol",
        "received on the upstream leg",
    ),
    (
        "dispatch_shutdown proxy_signal:15 dispatch proven",
        "stop signal: SIGTERM (15)",
        "received SIGTERM (15)",
    ),
    ("dispatch_shutdown proxy_gone dispatch proven", "stop signal", "without a signal"),
    (
        "dispatch_stalled stall dispatch likely self_lag_ms=6000",
        "blocked for 6.0s while the client waited",
        "6.0s late",
    ),
    (
        "dispatch_stalled stall dispatch likely self_lag_ms=1200 lag_ms=4700",
        "blocked for 4.7s while the client waited",
        "4.7s late",
    ),
    (
        "dispatch_stalled stall devvm likely self_lag_ms=6000 psi_cpu=95.0",
        "Pressure explains it",
        "6.0s late",
    ),
    (
        "dispatch_stalled local_error:24 dispatch proven dur_ms=0",
        "error 24 (too many open files)",
        "error 24",
    ),
    (
        "dispatch_died proxy_signal:9 dispatch proven",
        "terminated with the session open: killed by SIGKILL (9)",
        "killed by SIGKILL (9)",
    ),
    ("dispatch_died oom dispatch proven", "killed by the OOM killer", "OOM killer terminated t3-dispatch"),
    (
        "dispatch_died proxy_gone dispatch likely",
        "Likely: t3-dispatch terminated",
        "The cause of its exit is unknown",
    ),
    (
        "host_paused pause devvm proven pause_ms=12500",
        "The whole host did not run for 12.5s while the client waited",
        "the host did not run for 12.5s",
    ),
    ("admin_killed sock_destroy devvm proven", "destroyed on this host", "socket destroyed"),
    (
        "unknown power_loss devvm likely reconciled=journal",
        "went down without a shutdown",
        "power loss, reset or panic",
    ),
    ("unknown reboot devvm likely reconciled=journal", "shut down or rebooted", "the host was shut down"),
    (
        "dispatch_died proxy_gone dispatch likely reconciled=journal",
        "t3-trace was not running either",
        "may have closed shortly before",
    ),
    (
        "dispatch_died proxy_signal:9 dispatch proven reconciled=restart",
        "had waited for the next t3-dispatch",
        "SIGKILL",
    ),
    ("serve_oom oom serve proven reconciled=spool", "did not arrive in the journal", "OOM"),
    ("unknown rst unknown likely", "No rule matched; this is a bug", "No rule matched"),
];

#[test]
fn the_version_of_serve_is_shown() {
    let facts = |more: &str| {
        let words = format!("client_closed ws_close:1001 downstream proven hb_n=3 peer_exit=alive{more}");
        ExplainInput::of(record(&words), 1_000)
    };
    assert!(text(&facts(" serve_version=0.0.42")).contains("serve's process reported 0.0.42"));
    assert!(!text(&facts("")).contains("reported"));
}

#[test]
fn every_result_of_the_rules_has_an_answer_and_evidence() {
    let mut seen = (BTreeSet::new(), BTreeSet::new());
    for (words, said, named) in ENDS {
        let record = record(words);
        let (answer, evidence) = (answer::sentence(&record), answer::confidence(&record));
        assert!(answer.contains(said), "{words}\n{answer}");
        assert!(evidence.contains(named), "{words}\n{evidence}");
        assert!(answer.ends_with('.') && evidence.ends_with('.'), "{words}\n{answer}\n{evidence}");
        seen.0.insert(record.verdict);
        seen.1.insert(words.split(' ').nth(1).unwrap().split(':').next().unwrap());
    }
    assert_eq!(seen.0, Verdict::ALL.iter().copied().collect());
    assert_eq!(seen.1, How::TOKENS.iter().copied().collect());
}

#[test]
fn an_unhealthy_check_is_not_called_the_cause() {
    let unhealthy = |words: &str| {
        let page = Page::of(&ExplainInput::of(record(words), 0), &[], wall);
        page.unhealthy.iter().map(|check| check.name).collect::<Vec<_>>().join(" ")
    };
    let storm = "psi_mem=95.0 host_psi_mem=90.0 hb_n=9 hb_period_ms=1000 hb_wait_ms=9000 down_rtt_us=1 down_retrans=7 self_lag_ms=900 oom_kills=2";
    for (words, expected) in [
        (
            "client_reset rst downstream proven",
            "heartbeats PSI of serve PSI of the host OOM kills downstream leg t3-dispatch",
        ),
        (
            "serve_stalled stall serve proven",
            "PSI of serve PSI of the host OOM kills downstream leg t3-dispatch",
        ),
        ("serve_stalled stall devvm proven", "OOM kills downstream leg t3-dispatch"),
        (
            "path_stalled loss downstream likely",
            "heartbeats PSI of serve PSI of the host OOM kills t3-dispatch",
        ),
        ("serve_oom oom serve proven", "heartbeats PSI of serve PSI of the host downstream leg t3-dispatch"),
        ("dispatch_stalled stall dispatch likely", "PSI of serve PSI of the host OOM kills downstream leg"),
    ] {
        assert_eq!(unhealthy(&format!("{words} {storm}")), expected, "{words}");
    }
    assert_eq!(
        unhealthy(
            "client_left fin downstream proven psi_mem=19.9 psi_io=49.0 psi_cpu=79.0 hb_n=9 hb_wait_ms=900 hb_period_ms=1000"
        ),
        ""
    );
}

#[test]
fn missing_evidence_is_named_with_its_use() {
    let off = CloseRecord { kernel: KernelSource::Off, ..record("client_left fin downstream proven") };
    let said = |record: CloseRecord| text(&ExplainInput::of(record, 0));
    let page = said(off.clone());
    for part in [
        "kernel=off",
        "not measured",
        "only this record",
        "--traefik-log FILE",
        "--cloudflared-log FILE",
        "--prometheus URL",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    assert!(said(CloseRecord { kernel: KernelSource::Timeout, ..off }).contains("kernel=timeout"));
    let lost = CloseRecord { lost: Some(3), ..record("serve_reset rst serve proven") };
    let page = said(lost);
    assert!(page.contains("3 kernel events lost") && page.contains("6.10"), "{page}");
    assert!(!page.contains("--traefik-log"), "{page}");
}

fn word<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    select(all)
}

fn outside() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-z\u{1b}\n\r\t`' ]{0,30}", Just("x\n  verdict=client_closed".to_owned())]
}

fn how() -> impl Strategy<Value = How> {
    (select(How::TOKENS), any::<u16>())
        .prop_map(|(token, n)| format!("{token}:{n}").parse().or_else(|_| token.parse()).unwrap_or(How::Fin))
}

fn chain() -> impl Strategy<Value = Chain> {
    let event = (word(Side::ALL), "[a-z_]{1,9}[0-9]{0,4}", any::<i64>());
    vec(event.prop_map(|(side, what, at_ms)| Event { side, what, at_ms }), 0..8).prop_map(Chain)
}

fn numbers() -> impl Strategy<Value = Option<u64>> {
    option::of(prop_oneof![0..3_u64, 0..100_000_u64, any::<u64>()])
}

prop_compose! {
    fn any_record()(
        names in (outside(), outside(), outside()), dur_ms in any::<u64>(), verdict in word(Verdict::ALL),
        segment in word(Segment::ALL), kernel in word(KernelSource::ALL), how in option::of(how()),
        confidence in option::of(word(Confidence::ALL)), closed_by in option::of(word(ClosedBy::ALL)), chain in option::of(chain()),
        texts in vec(option::of(outside()), 5), numbers in vec(numbers(), 13), psi in vec(option::of(0..1000_u32), 6),
        fate in option::of(prop_oneof![Just(Fate::Alive), Just(Fate::Oom), any::<i32>().prop_map(Fate::Signal)]),
        burst in option::of((any::<u32>(), any::<u32>())), small in vec(option::of(any::<u32>()), 7),
    ) -> CloseRecord {
        let mut record = CloseRecord::new(names.0, names.1, dur_ms, Cause::Graceful, verdict, segment, names.2, kernel);
        (record.how, record.confidence, record.closed_by, record.chain) = (how, confidence, closed_by, chain);
        let mut text = texts.into_iter().flatten();
        (record.ws_reason, record.peer_comm, record.killed_by, record.oom_victim, record.rst_reason) =
            (text.next(), text.next(), text.next(), text.next(), text.next());
        record.ws_from = Some(Side::Down);
        let mut number = numbers.into_iter();
        let mut next = || number.next().flatten();
        (record.hb_n, record.hb_rtt_max_ms, record.hb_gap_ms, record.hb_wait_ms, record.hb_period_ms) =
            (next(), next(), next(), next(), next());
        (record.up_idle_ms, record.down_idle_ms, record.self_lag_ms) = (next(), next(), next());
        (record.mem_current, record.mem_max, record.oom_kills, record.lost) = (next(), next(), next(), next());
        record.resumed_ms = next();
        let mut share = psi.into_iter().map(|tenths| tenths.map(|tenths| Percent(tenths as f32 / 10.0)));
        let mut next = || share.next().flatten();
        (record.psi_mem, record.psi_io, record.psi_cpu_peak, record.host_psi_mem) = (next(), next(), next(), next());
        let mut number = small.into_iter();
        let mut next = || number.next().flatten();
        (record.peer_pid, record.down_rtt_us, record.down_retrans, record.up_lost) = (next(), next(), next(), next());
        record.resumed = next();
        record.peer_exit = fate;
        record.burst = burst.map(|(sessions, users)| Burst { sessions, users });
        record
    }
}

prop_compose! {
    fn any_facts()(
        record in any_record().boxed(), other in any_record().boxed(), at_ms in any::<i64>(), other_ms in any::<i64>(),
        open in option::of((outside(), any::<i64>(), numbers())), unit in outside(), whole in any::<bool>(),
    ) -> ExplainInput {
        let mut facts = ExplainInput::of(record, at_ms);
        facts.open = open.map(|(prev, at_ms, gap)| {
            let mut what = OpenRecord::new(facts.record.user.clone(), String::new(), facts.record.conn.clone());
            (what.prev, what.gap_ms) = (Some(prev), gap);
            Timed { at_ms, what }
        });
        facts.back = facts.open.clone();
        facts.around = whole.then(|| Context {
            until_ms: i64::MAX, closes: vec![Timed { at_ms: other_ms, what: other }], units: vec![Timed { at_ms, what: unit }],
            ..Context::default()
        });
        facts
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_page_has_the_contract_words_and_no_control_characters(facts in any_facts().boxed()) {
        let page = text(&facts);
        prop_assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{page:?}");
        let record = &facts.record;
        let mut words = format!("\n  verdict={} segment={}", record.verdict, record.segment);
        words.extend(record.how.map(|how| format!(" how={how}")));
        words.extend(record.closed_by.map(|by| format!(" closed_by={by}")));
        words.extend(record.confidence.map(|confidence| format!(" confidence={confidence}")));
        prop_assert!(page.contains(&format!("{words}\n")), "{words}\n{page}");
        // Text from outside cannot add a line with another verdict.
        prop_assert_eq!(page.matches("\n  verdict=").count(), 1);
    }

    #[test]
    fn a_proven_answer_is_not_hedged_and_a_likely_one_is(mut record in any_record().boxed()) {
        record.user = "ann".to_owned();
        (record.ws_reason, record.peer_comm, record.killed_by) = (None, None, None);
        let (sentence, evidence) = (answer::sentence(&record), answer::confidence(&record));
        let hedged = |text: &str| HEDGES.iter().any(|hedge| text.to_lowercase().contains(hedge));
        match record.confidence {
            Some(Confidence::Proven) => prop_assert!(!hedged(&sentence) && !hedged(&evidence), "{sentence} {evidence}"),
            _ => prop_assert!(hedged(&sentence), "{sentence}"),
        }
        prop_assert_eq!(evidence.starts_with("Proven"), record.confidence == Some(Confidence::Proven));
    }

    #[test]
    fn a_terminal_gets_the_same_text_with_colours(facts in any_facts().boxed()) {
        let page = Page::of(&facts, &[], wall);
        let mut coloured = page.text(Paint { colour: true }, 110, wall);
        for code in ["0", "1", "2", "32", "33", "1;31"] {
            coloured = coloured.replace(&format!("\u{1b}[{code}m"), "");
        }
        prop_assert_eq!(coloured, page.text(Paint { colour: false }, 110, wall));
    }

    #[test]
    fn a_page_as_json_has_the_same_answer(facts in any_facts().boxed()) {
        let page = Page::of(&facts, &[], wall);
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&page).unwrap()).unwrap();
        prop_assert_eq!(json["answer"].as_str(), Some(page.answer.as_str()));
        prop_assert_eq!(json["record"]["verdict"].as_str(), Some(facts.record.verdict.as_str()));
        prop_assert_eq!(json["timeline"].as_array().map(Vec::len), Some(page.timeline.len()));
    }
}

#[test]
fn json_keys_are_stable() {
    let facts = ExplainInput::of(record("client_left fin downstream likely"), 0);
    let json = serde_json::to_value(Page::of(&facts, &[], wall)).unwrap();
    let keys = |value: &serde_json::Value| {
        value.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        keys(&json),
        "answer at at_ms beside clean conn in_front ip lasted_ms near next pattern record sure timeline unknown user"
    );
    assert_eq!(keys(&json["in_front"]), "cannot confidence contradiction part said");
    assert_eq!(keys(&json["unknown"][0]), "said what");
    assert_eq!(keys(&json["timeline"][0]), "offset_ms source text");
}

#[test]
fn a_missing_close_is_reported_with_hints() {
    let found = Candidates { foreign: 2, broken: 1, ..Candidates::default() };
    let last = Selector::Last { user: None };
    let said = not_found(&last, &found, Some(Path::new("/var/log/journal/x/system.journal")));
    for part in [
        "--list-boots",
        "ignored 2 such records",
        "1 record cannot be read",
        "join the group systemd-journal",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let hostile = not_found(&Selector::Conn("a\u{1b}[2J".to_owned()), &Candidates::default(), None);
    assert!(!hostile.contains(char::is_control) && !hostile.contains("ignored"), "{hostile}");
}
