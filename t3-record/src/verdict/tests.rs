//! Table of the verdicts: one row per ending, and rules that must always hold.

use super::{
    evidence_builder::{END, EvidenceBuilder, MS, OPENED},
    *,
};
use crate::evidence::*;
use crate::vocabulary::KernelSource;

/// verdict, how, segment, closed_by, cause and confidence in one line.
fn line(builder: &EvidenceBuilder) -> String {
    let j = judge(&builder.0);
    let how = j.how.map_or("-".to_owned(), |how| how.to_string());
    let by = j.closed_by.map_or("-", ClosedBy::as_str);
    format!("{} {how} {} {by} {} {}", j.verdict, j.segment, j.cause, j.confidence)
}

#[track_caller]
pub(super) fn check(builder: EvidenceBuilder, expected: &str) {
    assert_eq!(line(&builder), expected, "{:#?}", builder.0);
}

use Side::{Down, Up};

#[test]
fn a_deliberate_end_of_the_client() {
    let s = EvidenceBuilder::healthy;
    check(
        s().close(Down, 1000, END).close(Up, 1000, END + 5 * MS),
        "client_closed ws_close:1000 downstream downstream graceful proven",
    );
    check(
        s().close(Down, 1001, END).fin(Down, END + MS),
        "client_closed ws_close:1001 downstream downstream downstream_closed proven",
    );
    check(
        s().close(Down, 4001, END).close(Up, 4001, END + MS),
        "client_closed ws_close:4001 downstream downstream graceful proven",
    );
    check(s().fin(Down, END), "client_left fin downstream downstream downstream_closed proven");
    check(
        s().fin(Down, END).fin(Up, END + 3 * MS),
        "client_left fin downstream downstream downstream_closed proven",
    );
    check(
        s().fin(Down, END).leg(Down, |l| l.mid_frame = true),
        "client_left mid_frame downstream downstream downstream_closed proven",
    );
    check(
        s().fin(Down, END).leg(Up, |l| l.last_byte_at = Some(END + 900 * MS)),
        "client_left half_close downstream downstream downstream_closed proven",
    );
    // Data after a full close is answered with RST: not a half-close.
    check(
        s().fin(Down, END)
            .leg(Up, |l| l.last_byte_at = Some(END + 900 * MS))
            .socket(Down, |t| t.rst_in = Some(END + 901 * MS)),
        "client_left fin downstream downstream downstream_closed proven",
    );
    check(s().rst(Down, END), "client_reset rst downstream downstream downstream_closed proven");
    check(
        s().leg(Down, |l| l.breach = Some(Breach::Unmasked)).close(Up, 1002, END),
        "client_protocol protocol downstream upstream upstream_closed proven",
    );
    check(
        s().leg(Down, |l| l.breach = Some(Breach::ReservedOpcode)).fin(Up, END),
        "client_protocol protocol downstream upstream upstream_closed proven",
    );
}

#[test]
fn a_client_that_vanished() {
    let timeout = |s: EvidenceBuilder| {
        s.socket(Down, |t| t.error = Some((110, END))).leg(Down, |l| l.end = Some((SeenEnd::Timeout, END)))
    };
    let s = || timeout(EvidenceBuilder::healthy());
    check(s(), "client_vanished vanished downstream dispatch downstream_closed proven");
    check(
        s().leg(Down, |l| l.tcp.as_mut().unwrap().unacked = 3),
        "client_vanished loss downstream dispatch downstream_closed proven",
    );
    check(
        s().leg(Down, |l| {
            l.pending_bytes = 9000;
            l.tcp.as_mut().unwrap().peer_window = Some(0);
        }),
        "client_vanished zero_window downstream dispatch downstream_closed proven",
    );
    // dispatch's RST at a keepalive timeout is part of it.
    let killed = s().socket(Down, |t| t.rst_out = Some(END - 1));
    assert_eq!(leg_end(&killed.0, Down), Some(LegEnd::Timeout));
    check(killed, "client_vanished vanished downstream dispatch downstream_closed proven");
    check(
        EvidenceBuilder::healthy().socket(Down, |t| t.error = Some((113, END))),
        "client_vanished unreach downstream dispatch downstream_closed proven",
    );
}

#[test]
fn a_deliberate_end_of_serve() {
    let s = EvidenceBuilder::healthy;
    check(
        s().close(Up, 1000, END).close(Down, 1000, END + 5 * MS),
        "serve_closed ws_close:1000 serve upstream graceful proven",
    );
    check(s().close(Up, 1011, END), "serve_closed ws_close:1011 serve upstream upstream_closed proven");
    check(s().fin(Up, END), "serve_left fin serve upstream upstream_closed proven");
    check(
        s().fin(Up, END).leg(Up, |l| l.mid_frame = true),
        "serve_left mid_frame serve upstream upstream_closed proven",
    );
    check(
        s().fin(Up, END).leg(Down, |l| l.last_byte_at = Some(END + 500 * MS)),
        "serve_left half_close serve upstream upstream_closed proven",
    );
    check(s().rst(Up, END), "serve_reset rst serve upstream upstream_closed proven");
    check(
        s().leg(Up, |l| l.breach = Some(Breach::Masked)).close(Down, 1002, END),
        "serve_protocol protocol serve downstream downstream_closed proven",
    );
}

#[test]
fn the_end_of_the_serve_process() {
    let s = EvidenceBuilder::healthy;
    check(
        s().fin(Up, END).peer(Fate::Exit(0), END - MS),
        "serve_exited exit:0 serve upstream upstream_closed proven",
    );
    check(
        s().rst(Up, END).peer(Fate::Exit(1), END - MS),
        "serve_exited exit:1 serve upstream upstream_closed proven",
    );
    check(
        s().rst(Up, END).peer(Fate::Signal(9), END - MS),
        "serve_killed signal:9 serve upstream upstream_closed proven",
    );
    check(
        s().fin(Up, END).peer(Fate::Signal(11), END - MS),
        "serve_killed signal:11 serve upstream upstream_closed proven",
    );
    check(s().rst(Up, END).peer(Fate::Oom, END - MS), "serve_oom oom serve upstream upstream_closed proven");
    check(
        s().fin(Up, END).leg(Up, |l| l.mid_frame = true).peer(Fate::Signal(9), END - MS),
        "serve_killed signal:9 serve upstream upstream_closed proven",
    );
    // SIGTERM, Close frame, exit.
    check(
        s().close(Up, 1001, END).fin(Up, END + MS).peer(Fate::Exit(0), END + 30 * MS),
        "serve_exited exit:0 serve upstream upstream_closed proven",
    );
    // An exit long after the close did not cause it, nor one after the client's end.
    check(
        s().close(Up, 1000, END).peer(Fate::Exit(0), END + 5_000 * MS),
        "serve_closed ws_close:1000 serve upstream upstream_closed likely"
            .replace("likely", "proven")
            .as_str(),
    );
    check(
        s().fin(Down, END).peer(Fate::Signal(9), END + 20 * MS),
        "client_left fin downstream downstream downstream_closed proven",
    );
}

#[test]
fn an_oom_kill_of_the_host_is_the_hosts() {
    let full = Stall { some: 60.0, full: Some(40.0), peak: 90.0, some30: 50.0 };
    let machine = EvidenceBuilder::healthy()
        .rst(Up, END)
        .peer(Fate::Oom, END - MS)
        .kernel(|k| k.host = Some(Pressure { mem: Some(full), ..Pressure::default() }));
    check(machine, "serve_oom oom devvm upstream upstream_closed proven");
}

#[test]
fn a_clean_close_of_the_watchdog_is_not_a_deliberate_end() {
    let s = EvidenceBuilder::healthy;
    // One ping unanswered for a period: serve was late.
    check(
        s().waiting(5_000, 1).close(Down, 1000, END),
        "serve_stalled stall serve downstream downstream_closed likely",
    );
    check(
        s().waiting(15_000, 3).close(Down, 1000, END),
        "serve_stalled stall serve downstream downstream_closed proven",
    );
    check(
        s().waiting(15_000, 3).rst(Down, END),
        "serve_stalled stall serve downstream downstream_closed proven",
    );
    check(
        s().waiting(5_000, 1)
            .close(Down, 1000, END)
            .kernel(|k| k.peer.as_mut().unwrap().halted = Some(Halt::Stopped)),
        "serve_stalled stall serve downstream downstream_closed proven",
    );
    // Answered, but pings stopped: the silence was downstream.
    check(
        s().heartbeat(|h| h.last_ping_at = Some(END - 16_000 * MS)).close(Down, 1000, END),
        "path_stalled heartbeat_lost downstream downstream downstream_closed likely",
    );
    check(
        s().heartbeat(|h| h.last_ping_at = Some(END - 16_000 * MS)).fin(Down, END),
        "path_stalled heartbeat_lost downstream downstream downstream_closed likely",
    );
    // Answered, written, never acknowledged.
    let stuck = |l: &mut LegFacts| {
        let tcp = l.tcp.as_mut().unwrap();
        (tcp.unacked, tcp.backoff, tcp.last_ack_recv_ms) = (4, 3, 6_000);
    };
    check(
        s().leg(Down, stuck).fin(Down, END),
        "path_stalled loss downstream downstream downstream_closed likely",
    );
    let shut = |l: &mut LegFacts| (l.pending_bytes, l.backed_up_since) = (70_000, Some(END - 9_000 * MS));
    check(
        s().leg(Down, shut).fin(Down, END),
        "path_stalled zero_window downstream downstream downstream_closed likely",
    );
}

#[test]
fn answers_unread_behind_a_zero_window_do_not_count_against_serve() {
    let shut = |since: u64| {
        move |l: &mut LegFacts| (l.pending_bytes, l.backed_up_since) = (70_000, Some(END - since * MS))
    };
    let s = |waited| EvidenceBuilder::healthy().waiting(waited, 3).rst(Down, END);
    check(
        s(14_000).leg(Down, shut(15_000)),
        "path_stalled zero_window downstream downstream downstream_closed likely",
    );
    // The ping preceded the zero window, and serve continued to send: its answer is in that queue.
    let sending = s(16_500).leg(Down, shut(15_000)).leg(Up, |l| l.last_byte_at = Some(END - 15_000 * MS));
    check(sending, "path_stalled zero_window downstream downstream downstream_closed likely");
    // serve had been silent for long enough before the zero window.
    let silent = s(25_000).leg(Up, |l| l.last_byte_at = Some(END - 30_000 * MS));
    check(silent.leg(Down, shut(15_000)), "serve_stalled stall serve downstream downstream_closed proven");
}

#[test]
fn a_fin_before_the_kernel_side_attached_comes_from_the_relay() {
    let late = EvidenceBuilder::healthy()
        .fin(Down, END)
        .socket(Down, |t| (t.fin_in, t.fin_out) = (None, Some(END + 2 * MS)));
    assert_eq!(leg_end(&late.0, Down), Some(LegEnd::FinIn));
    let ours = EvidenceBuilder::healthy()
        .close(Up, 1012, END)
        .fin(Up, END)
        .socket(Down, |t| (t.fin_in, t.fin_out) = (Some(END + 9 * MS), None));
    assert_eq!(leg_end(&ours.0, Down), Some(LegEnd::FinOut));
    check(late, "client_left fin downstream downstream downstream_closed proven");
}

#[test]
fn pressure_decides_only_the_segment_of_a_stall() {
    let stall = |some| Stall { some, full: None, peak: some, some30: some };
    let starving =
        |k: &mut KernelFacts| k.pressure = Some(Pressure { mem: Some(stall(70.0)), ..Pressure::default() });
    let s = EvidenceBuilder::healthy;
    check(
        s().waiting(15_000, 3).close(Down, 1000, END).kernel(starving),
        "serve_stalled stall devvm downstream downstream_closed proven",
    );
    // Under pressure, but each has another cause.
    check(
        s().close(Down, 1000, END).kernel(starving),
        "client_closed ws_close:1000 downstream downstream downstream_closed proven",
    );
    check(
        s().rst(Down, END).kernel(starving),
        "client_reset rst downstream downstream downstream_closed proven",
    );
    check(
        s().close(Up, 1011, END).kernel(starving),
        "serve_closed ws_close:1011 serve upstream upstream_closed proven",
    );
    // Pressure below the thresholds.
    let busy = |k: &mut KernelFacts| {
        k.pressure = Some(Pressure { mem: Some(stall(5.0)), io: Some(stall(35.0)), cpu: Some(stall(60.0)) });
    };
    check(
        s().waiting(15_000, 3).close(Down, 1000, END).kernel(busy),
        "serve_stalled stall serve downstream downstream_closed proven",
    );
}

#[test]
fn tolerated_missed_pings_are_counted() {
    let patient = |waited, unanswered| {
        EvidenceBuilder::healthy()
            .waiting(waited, unanswered)
            .heartbeat(|h| h.survived = 2)
            .close(Down, 1000, END)
    };
    // Its watchdog needs three missed pongs: after one it was a user who left.
    check(patient(5_000, 1), "client_closed ws_close:1000 downstream downstream downstream_closed proven");
    check(patient(15_000, 3), "serve_stalled stall serve downstream downstream_closed proven");
    // A close at the tick at which the next ping was due is the watchdog's.
    let tick =
        EvidenceBuilder::healthy().waiting(5_000, 1).heartbeat(|h| h.last_ping_at = Some(END - 5_000 * MS));
    check(tick.close(Down, 1000, END), "serve_stalled stall serve downstream downstream_closed proven");
}

#[test]
fn a_close_frame_counts_however_late_the_relay_reads_it() {
    // Frame and FIN reached the kernel together; the relay read them later.
    let both = |side| EvidenceBuilder::healthy().close(side, 1000, END + MS).fin(side, END);
    check(both(Down), "client_closed ws_close:1000 downstream downstream downstream_closed proven");
    check(both(Up), "serve_closed ws_close:1000 serve upstream upstream_closed proven");
    let reset = EvidenceBuilder::healthy().close(Down, 1001, END + MS).rst(Down, END);
    check(reset, "client_closed ws_close:1001 downstream downstream downstream_closed proven");
}

#[test]
fn data_delayed_on_the_path_differs_from_a_client_that_left() {
    let late = |code| {
        let builder = EvidenceBuilder::healthy()
            .heartbeat(|h| (h.last_ping_at, h.last_interval_ns) = (Some(END - MS), Some(18_000 * MS)));
        builder.waiting(1, 1).close(Down, code, END)
    };
    check(late(1000), "path_stalled heartbeat_lost downstream downstream downstream_closed likely");
    // The shortest possible silence: the lost ping and the watchdog's next tick, slightly early.
    let shortest = |ms| {
        let builder = EvidenceBuilder::healthy()
            .heartbeat(|h| (h.last_ping_at, h.last_interval_ns) = (Some(END - MS), Some(ms * MS)));
        builder.waiting(1, 1).close(Down, 1000, END)
    };
    check(shortest(9_996), "path_stalled heartbeat_lost downstream downstream downstream_closed likely");
    check(shortest(9_000), "client_closed ws_close:1000 downstream downstream downstream_closed proven");
    // A page in the background pings rarely and sends 1001 when it is left.
    check(late(1001), "client_closed ws_close:1001 downstream downstream downstream_closed proven");
    let hidden = EvidenceBuilder::healthy()
        .heartbeat(|h| h.last_ping_at = Some(END - 40_000 * MS))
        .close(Down, 1001, END);
    check(hidden, "client_closed ws_close:1001 downstream downstream downstream_closed proven");
    // One direction is dead, the other works.
    let deaf = |l: &mut LegFacts| {
        let tcp = l.tcp.as_mut().unwrap();
        (tcp.unacked, tcp.retransmits, tcp.last_ack_recv_ms) = (4, 5, 20);
    };
    check(
        EvidenceBuilder::healthy().leg(Down, deaf).close(Down, 1000, END),
        "path_stalled loss downstream downstream downstream_closed likely",
    );
}

#[test]
fn undelivered_answers_are_the_paths() {
    let sampled = |samples: &'static [(u64, u32)]| {
        EvidenceBuilder::healthy().relay(|r| r.samples = EvidenceBuilder::samples(samples))
    };
    let (closed, left, reset) = (
        "client_closed ws_close:1000 downstream downstream downstream_closed proven",
        "client_left fin downstream downstream downstream_closed proven",
        "client_reset rst downstream downstream downstream_closed proven",
    );
    let lost = "path_stalled loss downstream downstream downstream_closed likely";
    let all = |trouble: &'static [(u64, u32)], [close, fin, rst]: [&str; 3]| {
        check(sampled(trouble).close(Down, 1000, END), close);
        check(sampled(trouble).fin(Down, END), fin);
        check(sampled(trouble).rst(Down, END), rst);
    };
    // The last answer was unacknowledged at the client's next check: 5 s since the ping, 5 s more
    // since the answer.
    all(&[(5_000, 0), (5_000, 0), (9_900, 1)], [lost; 3]);
    // Delayed data arrived in pieces, followed by the end.
    all(&[(5_000, 0), (14_000, 4), (6_000, 1), (4_000, 0), (3_000, 0)], [lost; 3]);
    // Few heartbeats are delivered, each late.
    all(&[(11_000, 3), (13_000, 2), (10_000, 5), (12_000, 2)], [lost; 3]);
    // A user closes the tab on a path that loses more than half, while answers are delivered in
    // time.
    all(&[(5_200, 3), (5_100, 2), (6_500, 5), (7_000, 4), (5_400, 3)], [closed, left, reset]);
    // An outage, and three healthy heartbeats since.
    all(&[(40_000, 12), (5_000, 0), (5_000, 1), (5_000, 0), (2_000, 0)], [closed, left, reset]);
    // A bulk download over a healthy path: always data in flight, an occasional lost segment.
    all(&[(5_000, 1), (5_010, 0), (5_020, 2), (5_000, 1)], [closed, left, reset]);
    // Silence without loss, too long ago to delay the end: a page in the background pings rarely.
    all(&[(60_000, 0), (5_000, 0), (5_000, 0)], [closed, left, reset]);
    // A page that is left sends 1001, whatever the path.
    let gone = "client_closed ws_close:1001 downstream downstream downstream_closed proven";
    check(sampled(&[(5_000, 0), (14_000, 4)]).close(Down, 1001, END), gone);
    // The path was bad, and serve owed an answer for longer than the watchdog, which counts against
    // serve.
    let both = sampled(&[(5_000, 0), (14_000, 4)]).waiting(15_000, 3).close(Down, 1000, END);
    check(both, "serve_stalled stall serve downstream downstream_closed proven");
}

#[test]
fn a_reset_is_the_paths_only_after_a_recent_outage() {
    // Pings had stopped: the peer's host no longer knew the connection, without notice.
    let silent =
        EvidenceBuilder::healthy().heartbeat(|h| h.last_ping_at = Some(END - 16_000 * MS)).rst(Down, END);
    check(silent, "path_stalled heartbeat_lost downstream downstream downstream_closed likely");
    // Data delayed for long, answered after the client had gone.
    let late = EvidenceBuilder::healthy()
        .heartbeat(|h| (h.last_ping_at, h.last_interval_ns) = (Some(END - MS), Some(18_000 * MS)))
        .rst(Down, END);
    check(late, "path_stalled heartbeat_lost downstream downstream downstream_closed likely");
    let long_ago =
        EvidenceBuilder::healthy().leg(Down, |l| l.tcp.as_mut().unwrap().total_retrans = 8).rst(Down, END);
    check(long_ago, "client_reset rst downstream downstream downstream_closed proven");
}

#[test]
fn a_late_answer_is_not_a_stall() {
    check(
        EvidenceBuilder::healthy().waiting(900, 1).close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed proven",
    );
    check(
        EvidenceBuilder::healthy().waiting(900, 1).fin(Down, END),
        "client_left fin downstream downstream downstream_closed proven",
    );
}

#[test]
fn ends_caused_by_dispatch() {
    let stop = |at| move |r: &mut RelayFacts| r.shutdown = Some(Shutdown { signal: Some(15), at });
    let s = EvidenceBuilder::healthy;
    check(
        s().relay(stop(END))
            .own_end(Down, OwnEnd::Fin, END + MS)
            .own_end(Up, OwnEnd::Fin, END + MS)
            .fin(Down, END + 9 * MS),
        "dispatch_shutdown proxy_signal:15 dispatch dispatch dispatch_closed proven",
    );
    // The client had left before the shutdown.
    check(
        s().fin(Down, END - 2 * MS).relay(stop(END)),
        "client_left fin downstream downstream downstream_closed proven",
    );
    check(
        s().lag(25_000, 10).close(Down, 1000, END),
        "dispatch_stalled stall dispatch downstream downstream_closed likely",
    );
    check(
        s().lag(25_000, 10).fin(Down, END - 3_000 * MS),
        "dispatch_stalled stall dispatch downstream downstream_closed likely",
    );
    // serve exited during the stall of dispatch: the cause is serve.
    check(
        s().lag(25_000, 10).rst(Up, END - 3_000 * MS).peer(Fate::Signal(9), END - 3_001 * MS),
        "serve_killed signal:9 serve upstream upstream_closed proven",
    );
    // An old stall.
    check(
        s().lag(25_000, 20_000).close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed proven",
    );
}

#[test]
fn a_destroyed_socket() {
    let s = EvidenceBuilder::healthy;
    check(
        s().socket(Down, |t| (t.error, t.rst_out) = (Some((103, END)), Some(END + 1))),
        "admin_killed sock_destroy devvm dispatch downstream_closed proven",
    );
    check(
        s().socket(Up, |t| (t.error, t.rst_out) = (Some((103, END)), Some(END + 1))),
        "admin_killed sock_destroy devvm dispatch upstream_closed proven",
    );
    check(
        s().rst(Up, END).kernel(|k| k.serve.as_mut().unwrap().error = Some((103, END))),
        "admin_killed sock_destroy devvm dispatch upstream_closed proven",
    );
    check(
        s().no_kernel(KernelSource::Off).leg(Up, |l| l.end = Some((SeenEnd::Abort, END))),
        "admin_killed sock_destroy devvm dispatch upstream_closed proven",
    );
}

#[test]
fn simultaneous_closes_have_no_segment() {
    let crossing = |first: Side, second: Side| {
        EvidenceBuilder::healthy()
            .socket(first, |t| (t.fin_in, t.fin_out) = (Some(END), Some(END + 3 * MS)))
            .socket(second, |t| (t.fin_in, t.fin_out) = (Some(END + MS), Some(END + 2 * MS)))
            .kernel(|k| k.serve.as_mut().unwrap().fin_out = Some(END))
    };
    check(crossing(Down, Up), "client_left simultaneous none both downstream_closed proven");
    check(crossing(Up, Down), "serve_left simultaneous none both upstream_closed proven");
    // The relay took its time, was interrupted, and sent the FIN after the other one had arrived.
    let interrupted = crossing(Up, Down).leg(Down, |l| l.own_end = Some((OwnEnd::Fin, END + MS / 2)));
    check(interrupted, "serve_left simultaneous none both upstream_closed proven");
    // The kernel side missed that FIN and saw only the RST after it: the client's FIN is a reply.
    let missed = crossing(Up, Down)
        .leg(Down, |l| l.own_end = Some((OwnEnd::Fin, END + MS / 2)))
        .socket(Down, |t| (t.fin_out, t.rst_out) = (None, Some(END + 9 * MS)));
    check(missed, "serve_left fin serve upstream upstream_closed proven");
    // The answer to a forwarded FIN is not a separate act.
    check(
        EvidenceBuilder::healthy().fin(Down, END).fin(Up, END + 2 * MS),
        "client_left fin downstream downstream downstream_closed proven",
    );
    // A dead process is the cause, whatever crossed it.
    check(
        crossing(Up, Down).peer(Fate::Signal(9), END - MS),
        "serve_killed signal:9 serve upstream upstream_closed proven",
    );
}

#[test]
fn a_burst_explains_only_ends_without_another_cause() {
    let burst = |mut s: EvidenceBuilder, users| {
        s.0.burst = Some(Burst { sessions: 20, users });
        s
    };
    let s = EvidenceBuilder::healthy;
    check(burst(s().fin(Down, END), 5), "edge_burst burst downstream downstream downstream_closed likely");
    check(burst(s().rst(Down, END), 5), "edge_burst burst downstream downstream downstream_closed likely");
    // One user closing a browser with many tabs.
    check(burst(s().fin(Down, END), 1), "client_left fin downstream downstream downstream_closed proven");
    check(
        burst(s().close(Down, 1000, END), 5),
        "client_closed ws_close:1000 downstream downstream downstream_closed proven",
    );
    check(
        burst(s().rst(Up, END).peer(Fate::Signal(9), END - MS), 5),
        "serve_killed signal:9 serve upstream upstream_closed proven",
    );
    check(
        burst(s().waiting(15_000, 3).fin(Down, END), 5),
        "serve_stalled stall serve downstream downstream_closed proven",
    );
}

#[test]
fn without_the_kernel_the_side_is_known_and_the_confidence_is_likely() {
    for source in [KernelSource::Off, KernelSource::Timeout] {
        let s = || EvidenceBuilder::healthy();
        check(
            s().fin(Down, END).no_kernel(source),
            "client_left fin downstream downstream downstream_closed proven",
        );
        check(
            s().rst(Down, END).no_kernel(source),
            "client_reset rst downstream downstream downstream_closed proven",
        );
        check(s().fin(Up, END).no_kernel(source), "serve_left fin serve upstream upstream_closed likely");
        check(s().rst(Up, END).no_kernel(source), "serve_reset rst serve upstream upstream_closed likely");
        check(
            s().close(Up, 1000, END).no_kernel(source),
            "serve_closed ws_close:1000 serve upstream upstream_closed proven",
        );
        let ended = s().fin(Down, END).no_kernel(source);
        assert_eq!(
            (leg_end(&ended.0, Down), leg_end(&ended.0, Up)),
            (Some(LegEnd::FinIn), Some(LegEnd::FinOut))
        );
    }
}

#[test]
fn no_facts_are_unknown() {
    let empty = judge(&Evidence::default());
    assert_eq!((empty.verdict, empty.segment, empty.how), (Verdict::Unknown, Segment::Unknown, None));
    assert_eq!(judge(&EvidenceBuilder::healthy().0).verdict, Verdict::Unknown);
    assert_eq!(OPENED % MS, 0);
}
