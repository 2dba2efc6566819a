//! Limits: the evidence at the limit of a rule, and the evidence that just misses it.

use Side::{Down, Up};

use super::{
    acts::{Acts, Kind},
    disturbance::Disturbance,
    evidence_builder::*,
    leg_end,
    pressure::{Starved, limits, starved},
    tests::check,
};
use crate::{
    evidence::*,
    vocabulary::{HeartbeatSource, KernelSource, LegEnd, Side},
};

fn acts(builder: EvidenceBuilder) -> Acts {
    Acts::of(&builder.0)
}

fn first(builder: EvidenceBuilder) -> Option<(Kind, Nanos)> {
    acts(builder).first().map(|act| (act.kind, act.at))
}

#[test]
fn nothing_but_an_event_is_proven_after_an_overflow() {
    let check_both = |builder: fn() -> EvidenceBuilder, confidence: [&str; 2]| {
        for (is_overflowed, confidence) in [false, true].into_iter().zip(confidence) {
            let evidence = builder().kernel(|kernel| kernel.is_overflowed = is_overflowed).0;
            assert_eq!(crate::verdict::judge(&evidence).confidence.as_str(), confidence);
        }
    };
    check_both(|| EvidenceBuilder::healthy().fin(Up, END), ["proven", "likely"]);
    check_both(|| EvidenceBuilder::healthy().rst(Up, END).peer(Fate::Signal(9), END - MS), ["proven"; 2]);
}

#[test]
fn of_two_acts_at_the_same_time_serves_counts() {
    let both = EvidenceBuilder::healthy().close(Down, 1000, END).close(Up, 1000, END);
    assert_eq!(acts(both).first().map(|act| act.side), Some(Up));
    let client = EvidenceBuilder::healthy().close(Down, 1000, END - 1).close(Up, 1000, END);
    assert_eq!(acts(client).first().map(|act| act.side), Some(Down));
}

#[test]
fn a_peer_acts_before_a_time_not_at_it() {
    let acts = acts(EvidenceBuilder::healthy().fin(Down, END));
    assert_eq!(acts.peer_first_before(END), None);
    assert_eq!(acts.peer_first_before(END + 1).map(|act| act.kind), Some(Kind::Fin));
}

#[test]
fn an_act_at_the_time_of_a_notice_is_not_simultaneous() {
    let closes = |noticed| {
        acts(
            EvidenceBuilder::healthy()
                .close(Down, 1000, END)
                .close(Up, 1000, END + MS / 40)
                .leg(Down, |l| l.close_forwarded_at = Some(noticed)),
        )
        .simultaneous()
    };
    assert!(!closes(END));
    assert!(closes(END + 1));
}

#[test]
fn an_error_replaces_a_reset_only_if_the_kernel_traced_none() {
    let error = |errno| EvidenceBuilder::healthy().socket(Down, move |t| t.error = Some((errno, END - MS)));
    assert_eq!(first(error(104)), Some((Kind::Rst, END - MS)));
    // EPIPE repeats the end that is known already.
    assert_eq!(first(error(32)), None);
    assert_eq!(first(error(104).socket(Down, |t| t.rst_in = Some(END))), Some((Kind::Rst, END)));
}

#[test]
fn a_close_frame_replaces_the_fin_after_it_and_no_timeout() {
    let closed = || EvidenceBuilder::healthy().close(Down, 1000, END);
    let fin = closed().socket(Down, |t| t.fin_in = Some(END - MS));
    assert_eq!(first(fin), Some((Kind::CloseFrame, END - MS)));
    let timeout = closed().socket(Down, |t| t.error = Some((110, END - MS)));
    assert_eq!(first(timeout), Some((Kind::Timeout, END - MS)));
}

#[test]
fn each_errno_that_ends_a_connection_has_its_end() {
    for (errno, end) in [
        (110, Some(LegEnd::Timeout)),
        (103, Some(LegEnd::Abort)),
        (101, Some(LegEnd::Unreach)),
        (113, Some(LegEnd::Unreach)),
        (111, Some(LegEnd::Refused)),
        (32, None),
    ] {
        let error = EvidenceBuilder::healthy().socket(Up, |t| t.error = Some((errno, END)));
        assert_eq!(leg_end(&error.0, Up), end, "{errno}");
    }
}

#[test]
fn a_disturbance_of_a_fifth_of_the_time_is_not_small() {
    // The last ping was answered 2 s before the end; data that was held up arrives within 1.5 s.
    let is_small = |ms| {
        let evidence = EvidenceBuilder::healthy().lag(ms, 100).0;
        Disturbance::before(&evidence.relay.unwrap(), &evidence.kernel, END).is_small()
    };
    assert!(is_small(699));
    assert!(!is_small(700));
}

#[test]
fn a_session_is_young_before_the_shortest_watchdog_fires() {
    let left = |age: u64| {
        EvidenceBuilder::healthy()
            .relay(|r| (r.heartbeat, r.opened_at) = (None, Some(END - age * MS)))
            .fin(Down, END)
    };
    check(left(3_999), "client_left fin downstream downstream downstream_closed proven");
    check(left(4_000), "client_left fin downstream downstream downstream_closed likely");
}

#[test]
fn an_oom_kill_of_dispatch_is_named() {
    let mut died = EvidenceBuilder::healthy();
    died.0.relay = None;
    died.0.dispatch_died = Some(DispatchDeath { fate: Some(Fate::Oom), at: END });
    check(died, "dispatch_died oom dispatch dispatch dispatch_closed proven");
}

#[test]
fn a_ping_is_old_enough_at_nine_tenths_of_the_period() {
    let waiting = |ms| EvidenceBuilder::healthy().waiting(ms, 2).close(Down, 1000, END);
    check(waiting(4_500), "serve_stalled stall serve downstream downstream_closed proven");
    check(waiting(4_499), "client_closed ws_close:1000 downstream downstream downstream_closed likely");
}

#[test]
fn a_stall_is_proven_only_of_a_serve_that_has_answered() {
    let waiting = |pongs| {
        EvidenceBuilder::healthy().waiting(15_000, 3).heartbeat(|h| h.pongs = pongs).close(Down, 1000, END)
    };
    check(waiting(1), "serve_stalled stall serve downstream downstream_closed proven");
    check(waiting(0), "serve_stalled stall serve downstream downstream_closed likely");
}

#[test]
fn a_client_that_waits_for_pings_of_serve_judges_by_any_frame() {
    let silent = |ms: u64| {
        EvidenceBuilder::healthy()
            .heartbeat(|h| (h.source, h.is_by_serve) = (Some(HeartbeatSource::Ping), true))
            .leg(Up, |l| l.last_frame_at = Some(END - ms * MS))
            .close(Down, 1011, END)
    };
    check(silent(7_000), "serve_stalled stall serve downstream downstream_closed likely");
    check(silent(6_999), "client_closed ws_close:1011 downstream downstream downstream_closed proven");
}

#[test]
fn an_answer_is_in_a_blocked_queue_only_if_serve_sent_after_the_ping() {
    let blocked = |sent: Nanos| {
        EvidenceBuilder::healthy()
            .waiting(15_000, 3)
            .leg(Up, |l| l.last_byte_at = Some(sent))
            .leg(Down, |l| (l.pending_bytes, l.blocked_since) = (9, Some(END - 5_000 * MS)))
            .close(Down, 1000, END)
    };
    let ping = END - 15_000 * MS;
    check(blocked(ping), "serve_stalled stall serve downstream downstream_closed proven");
    check(blocked(ping - 1), "serve_stalled stall serve downstream downstream_closed proven");
    check(blocked(ping + 1), "path_stalled zero_window downstream downstream downstream_closed likely");
}

#[test]
fn one_unanswered_ping_is_enough_only_at_the_tick_of_a_watchdog() {
    let closed = |since_ping: u64| {
        EvidenceBuilder::healthy()
            .waiting(since_ping, 1)
            .heartbeat(|h| h.last_ping_at = Some(END - since_ping * MS))
            .close(Down, 1000, END)
    };
    for (since_ping, confidence) in [(4_500, "proven"), (5_500, "proven"), (5_501, "likely")] {
        check(
            closed(since_ping),
            &format!("serve_stalled stall serve downstream downstream_closed {confidence}"),
        );
    }
}

#[test]
fn six_messages_with_a_period_are_not_chance() {
    let stalled = |pings| {
        EvidenceBuilder::healthy()
            .waiting(15_000, 3)
            .heartbeat(|h| (h.source, h.pings) = (Some(HeartbeatSource::Rhythm), pings))
            .close(Down, 1000, END)
    };
    check(stalled(6), "serve_stalled stall serve downstream downstream_closed proven");
    check(stalled(5), "serve_stalled stall serve downstream downstream_closed likely");
    // Other messages between them.
    let irregular = stalled(60).heartbeat(|h| h.is_regular = false);
    check(irregular, "serve_stalled stall serve downstream downstream_closed likely");
    let healthy = |is_regular| {
        EvidenceBuilder::healthy()
            .heartbeat(|h| (h.source, h.is_regular) = (Some(HeartbeatSource::Rhythm), is_regular))
            .close(Down, 1000, END)
    };
    let closed = "client_closed ws_close:1000 downstream downstream downstream_closed";
    check(healthy(true), &format!("{closed} proven"));
    check(healthy(false), &format!("{closed} likely"));
    // A shorter period needs more.
    let slow = stalled(6).heartbeat(|h| h.period_ns = Some(2_000 * MS));
    check(slow, "serve_stalled stall serve downstream downstream_closed proven");
    let quick = stalled(6).heartbeat(|h| h.period_ns = Some(2_000 * MS - 1));
    check(quick, "serve_stalled stall serve downstream downstream_closed likely");
}

#[test]
fn a_watchdog_can_be_shorter_than_the_period_of_its_pings() {
    // engine.io 3: a ping each 25 s, and 5 s for the answer.
    let closed = |waited, code| {
        EvidenceBuilder::healthy()
            .waiting(waited, 1)
            .heartbeat(|h| (h.period_ns, h.last_ping_at) = (Some(25_000 * MS), Some(END - waited * MS)))
            .close(Down, code, END)
    };
    let row = |code: u16, confidence| {
        format!("client_closed ws_close:{code} downstream downstream downstream_closed {confidence}")
    };
    check(closed(4_000, 1000), &row(1000, "likely"));
    check(closed(3_999, 1000), &row(1000, "proven"));
    check(closed(4_000, 1001), &row(1001, "proven"));
}

#[test]
fn a_period_of_zero_is_unknown() {
    let waiting = |ms| {
        EvidenceBuilder::healthy().waiting(ms, 2).heartbeat(|h| h.period_ns = Some(0)).close(Down, 1000, END)
    };
    check(waiting(4_500), "serve_stalled stall serve downstream downstream_closed proven");
    check(waiting(4_499), "client_closed ws_close:1000 downstream downstream downstream_closed likely");
}

#[test]
fn delayed_pings_count_as_lost_only_shortly_before_the_end() {
    let closed = |since_ping: Nanos| {
        EvidenceBuilder::healthy()
            .heartbeat(|h| {
                (h.last_ping_at, h.last_pong_at) = (Some(END - since_ping), Some(END - since_ping + MS));
                h.last_interval_ns = Some(9_500 * MS);
            })
            .close(Down, 1000, END)
    };
    let period = 5_000 * MS;
    check(closed(period - 1), "path_stalled heartbeat_lost downstream downstream downstream_closed likely");
    check(closed(period), "client_closed ws_close:1000 downstream downstream downstream_closed proven");
}

#[test]
fn a_stopped_serve_explains_a_timeout_at_open_before_pressure_does() {
    let timeout = |halted| {
        EvidenceBuilder::healthy()
            .relay(|r| {
                (r.opened_at, r.heartbeat) = (None, None);
                r.open_failure = Some(OpenFailure::HandshakeTimeout);
            })
            .kernel(|k| {
                k.peer.as_mut().unwrap().halted = halted;
                k.pressure = Some(Pressure { cpu: Some(stall(100.0, None)), ..Pressure::default() });
            })
    };
    check(timeout(None), "serve_timeout handshake_timeout devvm upstream upstream_closed proven");
    check(
        timeout(Some(Halt::Stopped)),
        "serve_timeout handshake_timeout serve upstream upstream_closed proven",
    );
}

fn stall(some: f32, full: Option<f32>) -> Stall {
    Stall { some, full, ..Stall::default() }
}

#[test]
fn each_resource_has_its_thresholds() {
    let [mem, io, cpu] = limits();
    assert_eq!([mem, io, cpu], [20.0, 50.0, 80.0]);
    type Place = fn(&mut Pressure) -> &mut Option<Stall>;
    let rows: [(Place, f32, f32, Starved); 3] = [
        (|p| &mut p.mem, mem, 10.0, Starved::Memory),
        (|p| &mut p.io, io, 30.0, Starved::Io),
        (|p| &mut p.cpu, cpu, 80.0, Starved::Cpu),
    ];
    for (place, some, full, resource) in rows {
        let one = |value: Stall| {
            let mut pressure = Pressure::default();
            *place(&mut pressure) = Some(value);
            Some(pressure)
        };
        let absent = || KernelFacts::absent(KernelSource::Tracepoint);
        let in_cgroup = |value| starved(&KernelFacts { pressure: one(value), ..absent() });
        let on_host = |value| starved(&KernelFacts { host: one(value), ..absent() });
        assert_eq!(in_cgroup(stall(some, None)), Some(resource));
        assert_eq!(in_cgroup(Stall { some30: some, ..Stall::default() }), Some(resource));
        assert_eq!(in_cgroup(stall(some - 0.1, Some(99.0))), None);
        assert_eq!(on_host(stall(0.0, Some(full))), Some(resource));
        assert_eq!(on_host(stall(100.0, Some(full - 0.1))), None);
    }
}

#[test]
fn serve_gives_up_only_on_a_client_that_has_answered() {
    let left = |pongs| {
        EvidenceBuilder::healthy()
            .heartbeat(|h| {
                (h.source, h.is_by_serve, h.pongs) = (Some(HeartbeatSource::Ping), true, pongs);
                h.silent_since = Some(END - 4_500 * MS);
            })
            .rst(Up, END)
    };
    check(left(1), "path_stalled heartbeat_lost downstream upstream upstream_closed likely");
    check(left(0), "serve_reset rst serve upstream upstream_closed proven");
}

#[test]
fn a_timeout_into_an_open_window_is_a_firewall() {
    let lost = TcpFacts { unacked: 1, backoff: 1, peer_window: Some(1), ..TcpFacts::default() };
    let timeout = |tcp| {
        EvidenceBuilder::healthy()
            .socket(Up, |t| t.error = Some((110, END)))
            .leg(Up, |l| (l.end, l.tcp) = (Some((SeenEnd::Timeout, END)), Some(tcp)))
    };
    // The kernel clears the counters of what was in flight at the timeout.
    for tcp in [lost, TcpFacts { unacked: 0, ..lost }, TcpFacts { backoff: 0, ..lost }] {
        check(timeout(tcp), "serve_stalled loss devvm dispatch upstream_closed likely");
    }
    let zero_window = "serve_stalled zero_window serve dispatch upstream_closed";
    check(timeout(TcpFacts { peer_window: Some(0), ..lost }), &format!("{zero_window} proven"));
    check(timeout(TcpFacts { peer_window: None, ..lost }), &format!("{zero_window} likely"));
}

#[test]
fn only_the_opposite_change_after_it_ends_an_outage() {
    let vanished = |events: &[(NetworkChange, u64)]| {
        let network =
            events.iter().map(|(change, ms)| NetworkEvent { side: Down, change: *change, at: END - ms * MS });
        EvidenceBuilder::healthy()
            .kernel(|k| k.network = network.collect())
            .socket(Down, |t| t.error = Some((110, END)))
            .leg(Down, |l| l.end = Some((SeenEnd::Timeout, END)))
    };
    let down = (NetworkChange::LinkDown, 30_000);
    let ours = "client_vanished vanished devvm dispatch downstream_closed likely";
    check(vanished(&[down, (NetworkChange::AddressAdded, 29_000)]), ours);
    check(vanished(&[down, (NetworkChange::LinkUp, 30_000)]), ours);
    check(
        vanished(&[down, (NetworkChange::LinkUp, 29_999)]),
        "client_vanished vanished downstream dispatch downstream_closed proven",
    );
}
