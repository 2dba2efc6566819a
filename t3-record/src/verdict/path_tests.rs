//! Rows of what the client's socket shows of the path: blocked, slow, lossy, or gone.

use Side::Down;

use super::{evidence_builder::*, tests::check};
use crate::{evidence::*, vocabulary::Side};

const CLOSED: &str = "client_closed ws_close:1000 downstream downstream downstream_closed proven";

/// The client closes as its watchdog does, with this state of its socket.
fn closed(tcp: TcpFacts, pending: u64, blocked_ms: u64) -> EvidenceBuilder {
    EvidenceBuilder::healthy()
        .leg(Down, |l| {
            l.tcp = Some(tcp);
            (l.pending_bytes, l.blocked_since) = (pending, Some(END - blocked_ms * MS));
        })
        .close(Down, 1000, END)
}

fn stalled(how: &str) -> String {
    format!("path_stalled {how} downstream downstream downstream_closed likely")
}

#[test]
fn pending_data_that_the_socket_does_not_accept_blocks_the_path() {
    let open = TcpFacts { peer_window: Some(1), ..TcpFacts::default() };
    check(closed(TcpFacts::default(), 1, 4_500), &stalled("zero_window"));
    check(closed(TcpFacts::default(), 1, 4_500).leg(Down, |l| l.tcp = None), &stalled("zero_window"));
    check(closed(TcpFacts::default(), 1, 4_499), CLOSED);
    check(closed(TcpFacts::default(), 0, 4_500), CLOSED);
    // Without a report of the window, nothing is in flight into a closed one.
    check(closed(TcpFacts { unacked: 1, ..TcpFacts::default() }, 1, 4_500), &stalled("backlog"));
    check(closed(open, 1, 4_500), &stalled("backlog"));
    for lossy in [
        TcpFacts { retransmits: 1, ..open },
        TcpFacts { backoff: 1, ..open },
        TcpFacts { lost: 1, ..open },
        TcpFacts { total_retrans: 1, ..open },
    ] {
        check(closed(lossy, 1, 4_500), &stalled("loss"));
        check(closed(TcpFacts { peer_window: Some(0), ..lossy }, 1, 4_500), &stalled("zero_window"));
    }
}

#[test]
fn unsent_data_waits_for_a_closed_window() {
    let unsent =
        TcpFacts { notsent_bytes: 1, peer_window: Some(0), last_data_sent_ms: 4_500, ..TcpFacts::default() };
    check(closed(unsent, 0, 0), &stalled("zero_window"));
    for other in [
        TcpFacts { notsent_bytes: 0, ..unsent },
        TcpFacts { peer_window: Some(1), ..unsent },
        TcpFacts { last_data_sent_ms: 4_499, ..unsent },
    ] {
        check(closed(other, 0, 0), CLOSED);
    }
}

#[test]
fn data_in_flight_is_lost_if_nothing_is_acknowledged_or_a_segment_never() {
    let silent = TcpFacts { unacked: 1, last_ack_recv_ms: 4_500, retransmits: 1, ..TcpFacts::default() };
    let by_timer = TcpFacts { unacked: 1, retransmits: 5, ..TcpFacts::default() };
    for lost in [silent, TcpFacts { retransmits: 0, backoff: 1, ..silent }, by_timer] {
        check(closed(lost, 0, 0), &stalled("loss"));
        check(closed(TcpFacts { unacked: 0, ..lost }, 0, 0), CLOSED);
    }
    for other in [
        TcpFacts { last_ack_recv_ms: 4_499, ..silent },
        TcpFacts { retransmits: 0, ..silent },
        TcpFacts { retransmits: 4, ..by_timer },
    ] {
        check(closed(other, 0, 0), CLOSED);
    }
}

#[test]
fn a_client_that_vanished_was_silent_or_lost_segments_or_did_not_read() {
    let vanished = |tcp: TcpFacts, pending, retrans| {
        EvidenceBuilder::healthy()
            .leg(Down, |l| {
                (l.tcp, l.pending_bytes) = (Some(tcp), pending);
                l.end = Some((SeenEnd::Timeout, END));
            })
            .socket(Down, |t| (t.error, t.retrans) = (Some((110, END)), retrans))
    };
    let row = |how| format!("client_vanished {how} downstream dispatch downstream_closed proven");
    let silent_for = |ack, data| TcpFacts {
        last_ack_recv_ms: ack,
        last_data_recv_ms: data,
        peer_window: Some(1),
        ..TcpFacts::default()
    };
    let idle = silent_for(10_000, 10_000);
    check(vanished(TcpFacts { peer_window: Some(0), ..idle }, 0, 0), &row("zero_window"));
    check(vanished(TcpFacts { peer_window: None, ..idle }, 1, 0), &row("zero_window"));
    check(vanished(TcpFacts { peer_window: None, ..idle }, 0, 0), &row("vanished"));
    check(vanished(TcpFacts { peer_window: None, unacked: 1, ..idle }, 1, 0), &row("vanished"));
    check(vanished(idle, 1, 0), &row("vanished"));
    let recent = silent_for(8_999, 10_000);
    check(vanished(recent, 0, 0), &row("vanished"));
    for in_flight in [
        vanished(TcpFacts { unacked: 1, ..recent }, 0, 0),
        vanished(TcpFacts { retransmits: 1, ..recent }, 0, 0),
        vanished(TcpFacts { lost: 1, ..recent }, 0, 0),
        vanished(recent, 0, 1),
        vanished(TcpFacts { unacked: 1, ..silent_for(10_000, 8_999) }, 0, 0),
        vanished(TcpFacts { unacked: 1, user_timeout_ms: Some(20_000), ..silent_for(17_999, 20_000) }, 0, 0),
    ] {
        check(in_flight, &row("loss"));
    }
    check(vanished(TcpFacts { unacked: 1, ..silent_for(9_000, 9_000) }, 0, 0), &row("vanished"));
    let long = TcpFacts { unacked: 1, user_timeout_ms: Some(20_000), ..silent_for(18_000, 18_000) };
    check(vanished(long, 0, 0), &row("vanished"));
}

#[test]
fn a_reset_that_can_answer_data_of_dispatch_is_likely_the_clients() {
    let reset = |outstanding| {
        EvidenceBuilder::healthy()
            .leg(Down, |l| l.tcp = Some(TcpFacts { outstanding, ..TcpFacts::default() }))
            .rst(Down, END)
    };
    for (outstanding, confidence) in [(None, "proven"), (Some(0), "proven"), (Some(1), "likely")] {
        check(
            reset(outstanding),
            &format!("client_reset rst downstream downstream downstream_closed {confidence}"),
        );
    }
}
