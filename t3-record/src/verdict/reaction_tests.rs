//! Acts of a client's watchdog and of a client that waited: false alarms, heartbeats that stop,
//! watchdog generations, links that are lost; and ends of serve on request.

use Side::{Down, Up};

use super::{evidence_builder::*, tests::check};
use crate::{
    evidence::*,
    vocabulary::{HeartbeatSource, Side},
};

const CLOSED: &str = "client_closed ws_close:1000 downstream downstream downstream_closed";
const FALSE_ALARM: &str = "client_closed false_alarm downstream downstream downstream_closed likely";

/// The last ping was sent `ms` before the end, answered 2 ms later, and nothing was sent since.
fn quiet_since(ms: u64) -> EvidenceBuilder {
    EvidenceBuilder::healthy()
        .heartbeat(|h| {
            h.last_ping_at = Some(END - ms * MS);
            h.last_pong_at = Some(END - (ms - 2) * MS);
        })
        .leg(Down, |l| l.last_frame_at = Some(END - ms * MS))
        .leg(Up, |l| l.last_frame_at = Some(END - (ms - 2) * MS))
}

#[test]
fn a_watchdog_without_an_unanswered_ping_is_a_false_alarm() {
    check(quiet_since(5_010).close(Down, 1000, END), FALSE_ALARM);
    // A hidden tab has sent one ping, at a tick of 7 to 8 s.
    let hidden = quiet_since(7_800).heartbeat(|h| (h.pings, h.pongs, h.period_ns) = (1, 1, None));
    check(hidden.close(Down, 1000, END), FALSE_ALARM);
    let compressed = quiet_since(5_010).heartbeat(|h| h.source = Some(HeartbeatSource::Rhythm));
    check(compressed.close(Down, 1000, END), FALSE_ALARM);
    // A message that was read together with the last frame of serve does not wait.
    let together = quiet_since(5_010).leg(Down, |l| l.last_frame_at = Some(END - 5_008 * MS));
    check(together.close(Down, 1000, END), FALSE_ALARM);
    // A tick is not earlier than the period, and heartbeats count as missing before the second one.
    check(quiet_since(4_992).close(Down, 1000, END), FALSE_ALARM);
    check(quiet_since(4_991).close(Down, 1000, END), &format!("{CLOSED} proven"));
    check(quiet_since(9_499).close(Down, 1000, END), FALSE_ALARM);
    check(
        quiet_since(9_500).close(Down, 1000, END),
        "path_stalled heartbeat_lost downstream downstream downstream_closed likely",
    );
}

#[test]
fn other_closes_are_no_false_alarm() {
    // A user closes right after a reply.
    check(quiet_since(40).close(Down, 1000, END), &format!("{CLOSED} proven"));
    // Another code, a reason, another act.
    check(
        quiet_since(5_010).close(Down, 1001, END),
        "client_closed ws_close:1001 downstream downstream downstream_closed proven",
    );
    let reason = |l: &mut LegFacts| l.close_frame.as_mut().unwrap().reason = "heartbeat timeout".into();
    check(quiet_since(5_010).close(Down, 1000, END).leg(Down, reason), &format!("{CLOSED} proven"));
    check(
        quiet_since(5_010).fin(Down, END),
        "client_left fin downstream downstream downstream_closed proven",
    );
    // serve has sent a frame since, or a message waits for its reply.
    let served = quiet_since(5_010).leg(Up, |l| l.last_frame_at = Some(END - 900 * MS));
    check(served.close(Down, 1000, END), &format!("{CLOSED} proven"));
    let asked = quiet_since(5_010).leg(Down, |l| l.last_frame_at = Some(END - 900 * MS));
    check(asked.close(Down, 1000, END), &format!("{CLOSED} proven"));
    // A real stall: a ping waits, or the process is stopped.
    check(
        quiet_since(5_000).waiting(5_000, 1).close(Down, 1000, END),
        "serve_stalled stall serve downstream downstream_closed proven",
    );
    let stopped = quiet_since(5_010).kernel(|k| k.peer.as_mut().unwrap().halted = Some(Halt::Stopped));
    check(stopped.close(Down, 1000, END), &format!("{CLOSED} likely"));
    // Another client's Ping frames.
    let frames = quiet_since(5_010).heartbeat(|h| h.source = Some(HeartbeatSource::Ping));
    check(frames.close(Down, 1000, END), &format!("{CLOSED} proven"));
}

#[test]
fn a_close_after_heartbeats_have_stopped_is_likely() {
    let stopped = |ms, code| {
        let one = |h: &mut Heartbeat| (h.pings, h.pongs, h.period_ns) = (1, 1, None);
        let reason = |l: &mut LegFacts| l.close_frame.as_mut().unwrap().reason = "heartbeat timeout".into();
        quiet_since(ms).heartbeat(one).close(Down, code, END).leg(Down, reason)
    };
    check(stopped(30_000, 1000), &format!("{CLOSED} likely"));
    check(stopped(9_500, 1000), &format!("{CLOSED} likely"));
    check(stopped(9_499, 1000), &format!("{CLOSED} proven"));
    for (code, confidence) in [(1011, "likely"), (1001, "proven"), (4000, "proven")] {
        check(
            stopped(30_000, code),
            &format!("client_closed ws_close:{code} downstream downstream downstream_closed {confidence}"),
        );
    }
    // The same with a known period, where Close 1000 is a lost heartbeat already.
    check(
        quiet_since(30_000).close(Down, 1011, END),
        "client_closed ws_close:1011 downstream downstream downstream_closed likely",
    );
}

#[test]
fn each_watchdog_generation_shows_a_stall() {
    // Unanswered pings at the act, and the time since the first of them in periods.
    for (unanswered, periods) in [(1, 1), (3, 3)] {
        for source in [HeartbeatSource::Text, HeartbeatSource::Rhythm] {
            let wait = periods * 5_000;
            let stalled = EvidenceBuilder::healthy().waiting(wait, unanswered).heartbeat(|h| {
                h.source = Some(source);
                h.last_ping_at = Some(END - 5_000 * MS);
            });
            check(
                stalled.close(Down, 1000, END),
                "serve_stalled stall serve downstream downstream_closed proven",
            );
            // Frames stream without replies: only older clients leave, and so may a user.
            let streaming = EvidenceBuilder::healthy().waiting(wait, unanswered).heartbeat(|h| {
                h.source = Some(source);
                h.silent_since = None;
            });
            check(streaming.close(Down, 1000, END), &format!("{CLOSED} likely"));
        }
    }
}

#[test]
fn a_link_that_delivers_nothing_is_not_a_lossy_one() {
    let timeout = |heard_ms: u32, user_timeout_ms| {
        EvidenceBuilder::healthy().socket(Down, |t| (t.error, t.retrans) = (Some((110, END)), 7)).leg(
            Down,
            |l| {
                l.end = Some((SeenEnd::Timeout, END));
                l.tcp = Some(TcpFacts {
                    retransmits: 6,
                    last_ack_recv_ms: heard_ms,
                    last_data_recv_ms: heard_ms + 500,
                    user_timeout_ms,
                    peer_window: Some(65_000),
                    ..TcpFacts::default()
                });
            },
        )
    };
    let vanished = |how| format!("client_vanished {how} downstream dispatch downstream_closed proven");
    check(timeout(20_100, Some(20_000)), &vanished("vanished"));
    check(timeout(18_000, Some(20_000)), &vanished("vanished"));
    check(timeout(17_999, Some(20_000)), &vanished("loss"));
    check(timeout(9_000, None), &vanished("vanished"));
    check(timeout(8_999, None), &vanished("loss"));
    // Data from the client counts, too.
    let spoke =
        timeout(20_100, Some(20_000)).leg(Down, |l| l.tcp.as_mut().unwrap().last_data_recv_ms = 3_000);
    check(spoke, &vanished("loss"));
    // The kernel discards unacknowledged data with the timeout: which does not close the window.
    let pending = timeout(3_000, Some(20_000)).leg(Down, |l| l.pending_bytes = 9_000);
    check(pending, &vanished("loss"));
}

#[test]
fn a_zero_window_needs_the_peers_advertisement() {
    let stuck = |window: Option<u32>, retrans: u32| {
        EvidenceBuilder::healthy()
            .leg(Down, |l| {
                (l.pending_bytes, l.blocked_since) = (9_000, Some(END - 6_000 * MS));
                let tcp = TcpFacts { peer_window: window, total_retrans: retrans, ..TcpFacts::default() };
                l.tcp = Some(tcp);
            })
            .close(Down, 1000, END)
    };
    let stalled = |how| format!("path_stalled {how} downstream downstream downstream_closed likely");
    check(stuck(Some(0), 3), &stalled("zero_window"));
    check(stuck(None, 3), &stalled("zero_window"));
    check(stuck(Some(9_000), 3), &stalled("loss"));
    check(stuck(Some(9_000), 0), &stalled("backlog"));
    // serve sent after the ping, and its answer is lost on the way to the client.
    check(stuck(Some(9_000), 3).waiting(6_000, 1), &stalled("loss"));
}

#[test]
fn a_close_on_request_is_an_act_of_its_own() {
    let asked = |fate, ended: u64| {
        EvidenceBuilder::healthy().peer(fate, END + ended * MS).kernel(|k| {
            k.peer.as_mut().unwrap().stop_request =
                Some(StopRequest { signal: 15, by: None, at: END - 3 * MS });
        })
    };
    let closed = "serve_closed ws_close:1012 serve upstream upstream_closed";
    check(asked(Fate::Alive, 0).close(Up, 1012, END).fin(Up, END + MS), &format!("{closed} proven"));
    check(asked(Fate::Exit(0), 500).close(Up, 1012, END).fin(Up, END + MS), &format!("{closed} proven"));
    check(asked(Fate::Exit(0), 500).fin(Up, END), "serve_left fin serve upstream upstream_closed proven");
    check(asked(Fate::Signal(9), 900).close(Up, 1012, END).fin(Up, END + MS), &format!("{closed} proven"));
    // It exits by itself, and its sockets end with it.
    for ended in [0, 50] {
        check(
            asked(Fate::Exit(0), ended).fin(Up, END),
            "serve_exited exit:0 serve upstream upstream_closed proven",
        );
    }
    // Without a request before it, the close is part of the exit.
    check(
        asked(Fate::Exit(0), 500)
            .kernel(|k| k.peer.as_mut().unwrap().stop_request.as_mut().unwrap().at = END + MS)
            .close(Up, 1012, END)
            .fin(Up, END + 2 * MS),
        "serve_exited exit:0 serve upstream upstream_closed proven",
    );
}
