//! What a stall needs, and what forbids `proven`: recognised heartbeats, life, backlog, deaths,
//! pauses, delays, missing facts.

use Side::{Down, Up};

use super::{evidence_builder::*, tests::check};
use crate::{
    evidence::*,
    vocabulary::{HeartbeatSource, Side},
};

/// The record of a session whose heartbeat was recognised by its period.
fn rhythm(pings: u64) -> EvidenceBuilder {
    EvidenceBuilder::healthy()
        .heartbeat(|h| (h.source, h.pings, h.pongs) = (Some(HeartbeatSource::Rhythm), pings, pings - 1))
}

#[test]
fn a_stall_of_a_compressed_session_is_recognised() {
    let stalled = |pings| rhythm(pings).waiting(15_000, 3);
    check(
        stalled(12).close(Down, 1000, END),
        "serve_stalled stall serve downstream downstream_closed proven",
    );
    // A period of few messages can be chance.
    check(stalled(5).close(Down, 1000, END), "serve_stalled stall serve downstream downstream_closed likely");
    // At a short period more can.
    let quick = |pings| stalled(pings).heartbeat(|h| h.period_ns = Some(1_500 * MS));
    check(quick(11).close(Down, 1000, END), "serve_stalled stall serve downstream downstream_closed likely");
    check(quick(12).close(Down, 1000, END), "serve_stalled stall serve downstream downstream_closed proven");
    // The user closes a healthy session.
    check(
        rhythm(12).close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream graceful proven"
            .replace("graceful", "downstream_closed")
            .as_str(),
    );
    check(
        rhythm(12).close(Down, 1001, END),
        "client_closed ws_close:1001 downstream downstream downstream_closed proven",
    );
}

#[test]
fn without_heartbeats_a_close_that_a_watchdog_sends_is_likely() {
    let none = || EvidenceBuilder::healthy().relay(|r| r.heartbeat = None);
    check(
        none().close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed likely",
    );
    check(
        none().close(Down, 1011, END),
        "client_closed ws_close:1011 downstream downstream downstream_closed likely",
    );
    check(none().fin(Down, END), "client_left fin downstream downstream downstream_closed likely");
    check(none().rst(Down, END), "client_reset rst downstream downstream downstream_closed likely");
    // No watchdog sends these.
    check(
        none().close(Down, 1001, END),
        "client_closed ws_close:1001 downstream downstream downstream_closed proven",
    );
    check(
        none().close(Down, 4001, END),
        "client_closed ws_close:4001 downstream downstream downstream_closed proven",
    );
    // No watchdog fires in so young a session.
    let young = |s: EvidenceBuilder| s.relay(|r| r.opened_at = Some(END - 2_000 * MS));
    check(young(none()).fin(Down, END), "client_left fin downstream downstream downstream_closed proven");
    check(
        young(none()).close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed likely",
    );
    // What serve did does not depend on heartbeats.
    check(none().close(Up, 1011, END), "serve_closed ws_close:1011 serve upstream upstream_closed proven");
}

#[test]
fn any_frame_of_serve_is_life() {
    // serve sends frames and answers no ping.
    let streaming = || EvidenceBuilder::healthy().waiting(60_000, 12).heartbeat(|h| h.silent_since = None);
    check(
        streaming().close(Down, 1001, END),
        "client_closed ws_close:1001 downstream downstream downstream_closed proven",
    );
    check(
        streaming().close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed proven",
    );
    // A client that counts only answers gives up after one to three pings without one.
    let few = |unanswered| EvidenceBuilder::healthy().waiting(15_000, unanswered);
    let few = |unanswered| few(unanswered).heartbeat(|h| h.silent_since = Some(END - 300 * MS));
    check(
        few(3).close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed likely",
    );
    check(
        few(4).close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed proven",
    );
    check(
        few(3).close(Down, 1001, END),
        "client_closed ws_close:1001 downstream downstream downstream_closed proven",
    );
    // The stream stopped as well.
    let stopped = streaming().heartbeat(|h| h.silent_since = Some(END - 15_000 * MS));
    check(stopped.close(Down, 1000, END), "serve_stalled stall serve downstream downstream_closed proven");
}

#[test]
fn no_watchdog_closes_with_1001() {
    let stalled = || EvidenceBuilder::healthy().waiting(15_000, 3);
    check(
        stalled().close(Down, 1001, END),
        "client_closed ws_close:1001 downstream downstream downstream_closed proven",
    );
    check(stalled().close(Down, 1000, END), "serve_stalled stall serve downstream downstream_closed proven");
    // A library's keepalive timeout.
    check(stalled().close(Down, 1011, END), "serve_stalled stall serve downstream downstream_closed proven");
}

#[test]
fn a_stall_needs_an_empty_pipe() {
    // The answers wait behind data for a slow line.
    let queued = |since: u64| Some(Backlog { bytes: 900_000, since: END - since * MS });
    let slow = |since| EvidenceBuilder::healthy().leg(Down, |l| l.backlog = queued(since));
    check(
        slow(20_000).waiting(15_000, 3).close(Down, 1000, END),
        "path_stalled backlog downstream downstream downstream_closed likely",
    );
    check(
        slow(20_000).close(Down, 1000, END),
        "path_stalled backlog downstream downstream downstream_closed likely",
    );
    // A line that takes some bytes now and then is slow; one that takes none is blocked.
    let pending = |since: u64, blocked: u64| {
        slow(since).leg(Down, |l| {
            (l.pending_bytes, l.backed_up_since, l.blocked_since) =
                (70_000, Some(END - since * MS), Some(END - blocked * MS));
        })
    };
    check(
        pending(20_000, 40).waiting(15_000, 3).close(Down, 1000, END),
        "path_stalled backlog downstream downstream downstream_closed likely",
    );
    check(
        pending(20_000, 15_000).waiting(15_000, 3).close(Down, 1000, END),
        "path_stalled zero_window downstream downstream downstream_closed likely",
    );
    check(
        pending(20_000, 15_000).close(Down, 1001, END),
        "client_closed ws_close:1001 downstream downstream downstream_closed proven",
    );
    // serve had been silent for long before.
    check(
        slow(3_000).waiting(20_000, 4).close(Down, 1000, END),
        "serve_stalled stall serve downstream downstream_closed proven",
    );
    // Data of the last second, and a user who leaves during a download.
    check(
        slow(900).close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed proven",
    );
    check(
        slow(20_000).close(Down, 1001, END),
        "client_closed ws_close:1001 downstream downstream downstream_closed proven",
    );
}

#[test]
fn a_death_comes_before_a_stall() {
    // A core dump of 20 s: the process has its fatal signal, and its socket is open.
    let dying = |since: u64| {
        EvidenceBuilder::healthy().waiting(15_000, 3).peer(Fate::Signal(6), END).kernel(|k| {
            let peer = k.peer.as_mut().unwrap();
            (peer.ended_at, peer.signalled_at) = (None, Some(END - since * MS));
        })
    };
    check(
        dying(16_000).close(Down, 1000, END),
        "serve_killed signal:6 serve downstream downstream_closed proven",
    );
    check(dying(16_000).fin(Down, END), "serve_killed signal:6 serve downstream downstream_closed proven");
    // The user left by chance right after the signal.
    check(
        dying(300).waiting(100, 1).close(Down, 1000, END),
        "serve_killed signal:6 serve downstream downstream_closed likely",
    );
    check(
        dying(16_000).close(Down, 1001, END),
        "client_closed ws_close:1001 downstream downstream downstream_closed proven",
    );
    // The signal came after the client had given up.
    let later =
        EvidenceBuilder::healthy().waiting(15_000, 3).peer(Fate::Signal(6), END + 9_000 * MS).kernel(|k| {
            k.peer.as_mut().unwrap().signalled_at = Some(END + 8_000 * MS);
        });
    check(later.close(Down, 1000, END), "serve_stalled stall serve downstream downstream_closed proven");
    // Its child kept the socket.
    let inherited = EvidenceBuilder::healthy().waiting(15_000, 3).peer(Fate::Signal(9), END - 15_500 * MS);
    check(
        inherited.close(Down, 1000, END),
        "serve_killed signal:9 serve downstream downstream_closed proven",
    );
    let oom = EvidenceBuilder::healthy().waiting(15_000, 3).peer(Fate::Oom, END - 15_500 * MS);
    check(oom.close(Down, 1000, END), "serve_oom oom serve downstream downstream_closed proven");
}

#[test]
fn a_host_that_did_not_run_is_the_cause() {
    let paused = |length: u64, ended: u64| {
        let pause = Pause { at: END - ended * MS, length: length * MS, is_certain: true };
        EvidenceBuilder::healthy().relay(|r| r.pauses.push(pause)).heartbeat(|h| {
            // The last answer was before the pause.
            (h.last_ping_at, h.last_pong_at) =
                (Some(END - (ended + 1_000) * MS), Some(END - (ended + 999) * MS));
        })
    };
    let host = "host_paused pause devvm downstream downstream_closed proven";
    check(paused(12_500, 20).close(Down, 1000, END), host);
    check(paused(12_500, 20).fin(Down, END), host);
    check(paused(12_500, 20).rst(Down, END), host);
    // The close was lost during the pause, and sent again.
    check(paused(12_500, 9_000).fin(Down, END), host);
    // Shorter than any watchdog: the user left, but the order of events proves nothing.
    check(
        paused(2_000, 20).close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed likely",
    );
    // The session had gone on after the pause.
    let over = paused(12_500, 9_000)
        .heartbeat(|h| (h.last_ping_at, h.last_pong_at) = (Some(END - 2_000 * MS), Some(END - 1_999 * MS)));
    check(
        over.close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed proven",
    );
    check(
        paused(12_500, 20).close(Down, 1001, END),
        "client_closed ws_close:1001 downstream downstream downstream_closed likely",
    );
    // serve died, whatever the host did.
    check(
        paused(12_500, 20).rst(Up, END).peer(Fate::Signal(9), END - MS),
        "serve_killed signal:9 serve upstream upstream_closed proven",
    );
}

#[test]
fn delays_of_dispatch_are_summed_and_forbid_proven() {
    // 20 ms of every 2.6 s.
    let pieces = |mut s: EvidenceBuilder| {
        for n in 0..10 {
            s = s.lag(2_580, n * 2_600);
        }
        s
    };
    let stale = || {
        EvidenceBuilder::healthy().heartbeat(|h| {
            (h.last_ping_at, h.last_pong_at) = (Some(END - 10_000 * MS), Some(END - 9_999 * MS));
        })
    };
    check(
        pieces(stale()).close(Down, 1000, END),
        "dispatch_stalled stall dispatch downstream downstream_closed likely",
    );
    // A freeze of 3.5 s is enough for a heartbeat of 1 s, and not for one of 5 s.
    let fast =
        |period: u64| EvidenceBuilder::healthy().heartbeat(|h| h.period_ns = Some(period * MS)).lag(3_500, 5);
    check(
        fast(1_000).close(Down, 1000, END),
        "dispatch_stalled stall dispatch downstream downstream_closed likely",
    );
    check(
        fast(5_000).close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed likely",
    );
    // A delay that was over before the last answer, and a small one.
    check(
        EvidenceBuilder::healthy().lag(3_500, 6_000).close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed proven",
    );
    check(
        EvidenceBuilder::healthy().lag(300, 5).close(Down, 1000, END),
        "client_closed ws_close:1000 downstream downstream downstream_closed proven",
    );
}

#[test]
fn a_delay_after_the_act_is_not_its_cause() {
    // The next process of dispatch read the FIN 6 s after the kernel.
    let delayed = |before: u64| {
        let span = Span { from: END - before * MS, until: END + 6_000 * MS };
        EvidenceBuilder::healthy()
            .heartbeat(|h| {
                (h.period_ns, h.last_interval_ns) = (Some(1_000 * MS), Some(1_000 * MS));
                (h.last_ping_at, h.last_pong_at) = (Some(END - before * MS), Some(END - before * MS));
            })
            .relay(|relay| relay.delays.push(span))
            .fin(Down, END)
    };
    check(delayed(20), "client_left fin downstream downstream downstream_closed proven");
    check(delayed(3_500), "dispatch_stalled stall dispatch downstream downstream_closed likely");
}

#[test]
fn without_the_facts_of_the_relay_only_a_death_is_proven() {
    let orphan = |mut s: EvidenceBuilder| {
        s.0.relay = None;
        s
    };
    let s = EvidenceBuilder::healthy;
    check(orphan(s().fin(Down, END)), "client_left fin downstream downstream downstream_closed likely");
    check(orphan(s().rst(Up, END)), "serve_reset rst serve upstream upstream_closed likely");
    check(
        orphan(s().rst(Up, END).peer(Fate::Signal(9), END - MS)),
        "serve_killed signal:9 serve upstream upstream_closed proven",
    );
}

#[test]
fn an_act_of_serve_is_proven_on_its_own_end_only() {
    let unseen = |s: EvidenceBuilder| s.kernel(|k| k.serve = Some(SocketFacts::default()));
    let s = EvidenceBuilder::healthy;
    // A firewall of this host rejects.
    check(unseen(s().rst(Up, END)), "serve_reset rst devvm upstream upstream_closed likely");
    check(unseen(s().fin(Up, END)), "serve_left fin serve upstream upstream_closed likely");
    // A socket without events has no facts, unless events were lost or t3-trace came too late.
    let none = || s().rst(Up, END).kernel(|k| k.serve = None);
    check(none(), "serve_reset rst devvm upstream upstream_closed likely");
    check(none().kernel(|k| k.lost = 1), "serve_reset rst serve upstream upstream_closed likely");
    check(none().kernel(|k| k.up = None), "serve_reset rst serve upstream upstream_closed likely");
    // It drops: retransmissions although serve's window is open.
    let timeout = |window: u32| {
        s().socket(Up, |t| t.error = Some((110, END))).leg(Up, |l| {
            let tcp = l.tcp.as_mut().unwrap();
            (tcp.unacked, tcp.backoff, tcp.peer_window) = (3, 5, Some(window));
        })
    };
    check(timeout(60_000), "serve_stalled loss devvm dispatch upstream_closed likely");
    check(timeout(0), "serve_stalled zero_window serve dispatch upstream_closed proven");
}

#[test]
fn behind_a_forwarder_nothing_of_serve_is_proven() {
    let forwarded = |s: EvidenceBuilder| s.kernel(|k| k.peer.as_mut().unwrap().is_forwarder = true);
    let s = EvidenceBuilder::healthy;
    check(forwarded(s().fin(Up, END)), "serve_left fin serve upstream upstream_closed likely");
    check(forwarded(s().rst(Up, END)), "serve_reset rst serve upstream upstream_closed likely");
    check(
        forwarded(s().close(Up, 1000, END)),
        "serve_closed ws_close:1000 serve upstream upstream_closed likely",
    );
    // The forwarder itself died.
    check(
        forwarded(s().rst(Up, END).peer(Fate::Signal(9), END - MS)),
        "serve_killed signal:9 serve upstream upstream_closed proven",
    );
}

#[test]
fn a_serve_that_gives_up_on_a_silent_client_is_not_the_cause() {
    let silent = |ms: u64, unanswered: u32| {
        EvidenceBuilder::healthy().waiting(ms, unanswered).heartbeat(|h| h.is_by_serve = true)
    };
    let path = "path_stalled heartbeat_lost downstream upstream upstream_closed likely";
    check(silent(5_000, 1).fin(Up, END), path);
    check(silent(10_000, 2).rst(Up, END), path);
    check(silent(10_000, 2).close(Up, 1011, END), path);
    // socket.io waits for 0.8 periods.
    check(silent(4_000, 1).close(Up, 1000, END), path);
    check(silent(2_500, 1).fin(Up, END), path);
    check(silent(2_499, 1).fin(Up, END), "serve_left fin serve upstream upstream_closed proven");
    // One ping that serve has just sent.
    check(silent(1_000, 1).fin(Up, END), "serve_left fin serve upstream upstream_closed proven");
    // The client sent other frames.
    let alive = silent(10_000, 2).heartbeat(|h| h.silent_since = None);
    check(alive.fin(Up, END), "serve_left fin serve upstream upstream_closed proven");
    // The pings of the client, which wait for serve.
    check(
        EvidenceBuilder::healthy().waiting(10_000, 2).fin(Up, END),
        "serve_left fin serve upstream upstream_closed proven",
    );
    check(
        silent(10_000, 2).fin(Up, END).peer(Fate::Signal(9), END - MS),
        "serve_killed signal:9 serve upstream upstream_closed proven",
    );
}

#[test]
fn a_late_reply_that_crosses_with_the_close_is_a_stall() {
    let answered = |rtt: u64, before: u64| {
        EvidenceBuilder::healthy().heartbeat(|h| {
            (h.rtt_ns, h.last_pong_at) = (Some(rtt * MS), Some(END - before * MS));
            (h.waiting_since, h.silent_since, h.unanswered) = (None, None, 0);
        })
    };
    let stalled = "serve_stalled stall serve downstream downstream_closed likely";
    check(answered(4_500, 2).close(Down, 1000, END), stalled);
    check(answered(15_000, 499).fin(Down, END), stalled);
    // A user who leaves, after an answer that was in time or that the client has read.
    let closed = "client_closed ws_close:1000 downstream downstream downstream_closed proven";
    check(answered(4_499, 2).close(Down, 1000, END), closed);
    check(answered(15_000, 500).close(Down, 1000, END), closed);
    check(
        answered(15_000, 2).close(Down, 1001, END),
        "client_closed ws_close:1001 downstream downstream downstream_closed proven",
    );
}
