//! Sessions that never opened: one row per way.

use Side::Down;

use super::{evidence_builder::*, tests::check};
use crate::{evidence::*, vocabulary::Side};

fn open(failure: OpenFailure, waited_ms: u64) -> EvidenceBuilder {
    EvidenceBuilder::healthy().relay(|r| {
        r.opened_at = None;
        r.heartbeat = None;
        r.started_at = END - waited_ms * MS;
        r.open_failure = Some(failure);
    })
}

#[test]
fn a_session_that_never_opened() {
    check(open(OpenFailure::Unreach, 1), "serve_refused unreach serve upstream upstream_closed proven");
    check(
        open(OpenFailure::HandshakeTimeout, 15_000),
        "serve_timeout handshake_timeout serve upstream upstream_closed proven",
    );
    check(
        open(OpenFailure::HandshakeEof, 1),
        "serve_left handshake_eof serve upstream upstream_closed proven",
    );
    check(open(OpenFailure::HandshakeReset, 1), "serve_reset rst serve upstream upstream_closed proven");
    check(
        open(OpenFailure::HandshakeReset, 1).peer(Fate::Signal(9), END - MS),
        "serve_killed signal:9 serve upstream upstream_closed proven",
    );
    check(
        open(OpenFailure::Status(401), 1),
        "serve_rejected status:401 serve upstream upstream_closed proven",
    );
    check(open(OpenFailure::BadAccept, 1), "serve_protocol bad_accept serve upstream upstream_closed proven");
    check(open(OpenFailure::Garbage, 1), "serve_protocol garbage serve upstream upstream_closed proven");
    check(
        open(OpenFailure::ClientGone, 200),
        "client_left fin downstream downstream downstream_closed likely",
    );
    check(
        open(OpenFailure::ClientGone, 200).socket(Down, |t| t.fin_in = Some(END)),
        "client_left fin downstream downstream downstream_closed proven",
    );
    check(
        open(OpenFailure::ClientGone, 200).relay(|r| r.down.end = Some((SeenEnd::Eof, END))),
        "client_left fin downstream downstream downstream_closed proven",
    );
    check(
        open(OpenFailure::ClientGone, 200).relay(|r| r.down.end = Some((SeenEnd::Reset, END))),
        "client_reset rst downstream downstream downstream_closed proven",
    );
    // Cancelled by a shutdown; and a client that had left before it.
    let stop = |at| move |r: &mut RelayFacts| r.shutdown = Some(Shutdown { signal: Some(15), at });
    check(
        open(OpenFailure::ClientGone, 200).relay(stop(END - MS)).socket(Down, |t| t.fin_in = Some(END)),
        "dispatch_shutdown proxy_signal:15 dispatch dispatch dispatch_closed proven",
    );
    check(
        open(OpenFailure::ClientGone, 200).relay(stop(END)).socket(Down, |t| t.fin_in = Some(END - MS)),
        "client_left fin downstream downstream downstream_closed proven",
    );
    check(
        open(OpenFailure::ClientGone, 15_000).relay(|r| r.up.own_end = Some((OwnEnd::Fin, END))),
        "serve_timeout handshake_timeout serve downstream downstream_closed likely",
    );
    // The shortest open timeout of a client is 5 s; a user who leaves earlier may have waited.
    let left = |waited, connected: bool| {
        open(OpenFailure::ClientGone, waited).socket(Down, |t| t.fin_in = Some(END)).relay(|r| {
            r.up.own_end = connected.then_some((OwnEnd::Fin, END));
        })
    };
    for (waited, expected) in [
        (999, "client_left fin downstream downstream downstream_closed proven"),
        (1_000, "client_left fin downstream downstream downstream_closed likely"),
        (4_499, "client_left fin downstream downstream downstream_closed likely"),
        (4_500, "serve_timeout handshake_timeout serve downstream downstream_closed likely"),
    ] {
        check(left(waited, true), expected);
    }
    check(left(5_000, false), "serve_timeout connect_timeout serve downstream downstream_closed likely");
    // Chromium connects to one address one after the other: a second tab's attempt has had only the
    // rest of its time here.
    let halted = |k: &mut KernelFacts| k.peer.as_mut().unwrap().halted = Some(Halt::Stopped);
    check(
        open(OpenFailure::ClientGone, 1_000)
            .kernel(halted)
            .relay(|r| r.up.own_end = Some((OwnEnd::Fin, END))),
        "serve_timeout handshake_timeout serve downstream downstream_closed likely",
    );
    check(
        open(OpenFailure::ClientGone, 200).kernel(halted),
        "client_left fin downstream downstream downstream_closed likely",
    );
    check(
        open(OpenFailure::ClientGone, 200).kernel(halted).fin(Down, END),
        "client_left fin downstream downstream downstream_closed likely",
    );
    check(
        open(OpenFailure::ClientGone, 200).fin(Down, END),
        "client_left fin downstream downstream downstream_closed proven",
    );
    check(
        open(OpenFailure::Local(24), 1),
        "dispatch_stalled local_error:24 dispatch dispatch dispatch_closed proven",
    );
}

#[test]
fn a_port_of_another_user_is_refused_and_certain_only_with_its_uid() {
    let foreign = |uid| open(OpenFailure::ForeignListener, 1).relay(|r| r.peer_uid = uid);
    check(foreign(Some(1002)), "serve_refused foreign_listener devvm upstream upstream_closed proven");
    check(foreign(None), "serve_refused foreign_listener devvm upstream upstream_closed likely");
}

#[test]
fn a_refused_connection_is_judged_by_the_listening_sockets() {
    let refused = |listeners| open(OpenFailure::Refused, 1).relay(|r| r.listeners = listeners);
    let none = Listeners::default();
    check(refused(Some(none)), "serve_refused refused serve upstream upstream_closed proven");
    check(
        refused(Some(Listeners { elsewhere: true, ..none })),
        "serve_refused other_address serve upstream upstream_closed proven",
    );
    // A firewall of this host rejects it, whatever else listens.
    for elsewhere in [false, true] {
        check(
            refused(Some(Listeners { queue: Some(0), elsewhere, ..none })),
            "serve_refused refused devvm upstream upstream_closed likely",
        );
    }
    check(refused(None), "serve_refused refused serve upstream upstream_closed likely");
}

#[test]
fn a_connection_that_is_never_accepted_is_judged_by_the_accept_queue() {
    let silent = |queue, overflowed| {
        let listeners = Listeners { queue, elsewhere: false, overflowed };
        open(OpenFailure::ConnectTimeout, 5_000).relay(|r| r.listeners = Some(listeners))
    };
    let full =
        |confidence| format!("serve_timeout connect_timeout serve upstream upstream_closed {confidence}");
    check(silent(Some(12), Some(true)), &full("proven"));
    // The queue was emptied before it was read, or its overflow was not observed.
    check(silent(Some(0), Some(true)), &full("likely"));
    check(silent(Some(1), None), &full("likely"));
    check(open(OpenFailure::ConnectTimeout, 5_000), &full("likely"));
    // A firewall of this host drops the SYNs.
    for (queue, overflowed) in
        [(Some(0), Some(false)), (Some(3), Some(false)), (Some(0), None), (None, Some(false)), (None, None)]
    {
        check(silent(queue, overflowed), "serve_timeout loss devvm upstream upstream_closed likely");
    }
}

#[test]
fn a_client_may_have_given_up_on_a_request_that_dispatch_had_not_read() {
    let unread = |failure| open(failure, 1).relay(|r| r.up.last_frame_at = None);
    // dispatch was late until 1 ms before it read the request together with the client's FIN.
    let late = |ms: u64| unread(OpenFailure::ClientGone).lag(ms, 2).fin(Down, END);
    let stalled = "dispatch_stalled stall dispatch downstream downstream_closed likely";
    check(late(12_000), stalled);
    check(late(2_000), "client_left fin downstream downstream downstream_closed likely");
    // A large part of the time is missing.
    check(late(900), "client_left fin downstream downstream downstream_closed likely");
    check(late(100), "client_left fin downstream downstream downstream_closed proven");
    let paused = |length: u64| {
        let pause = Pause { at: END - 2 * MS, length: length * MS, is_certain: true };
        unread(OpenFailure::ClientGone).relay(|r| r.pauses.push(pause)).fin(Down, END)
    };
    check(paused(12_000), "host_paused pause devvm downstream downstream_closed proven");
    check(paused(2_000), "client_left fin downstream downstream downstream_closed likely");
    // Long before, and over.
    let before = unread(OpenFailure::ClientGone).lag(12_000, 5_000).fin(Down, END);
    check(before, "client_left fin downstream downstream downstream_closed proven");
    // An error from serve: its verdict stays.
    check(
        unread(OpenFailure::Status(401)).lag(12_000, 2),
        "serve_rejected status:401 serve upstream upstream_closed likely",
    );
}
