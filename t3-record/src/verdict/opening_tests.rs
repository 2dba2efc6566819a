//! Sessions that never opened: one row per way.

use Side::Down;

use super::{evidence_builder::*, tests::check};
use crate::{evidence::*, vocabulary::Side};

#[test]
fn a_session_that_never_opened() {
    let open = |failure, waited_ms: u64| {
        EvidenceBuilder::healthy().relay(|r| {
            r.opened_at = None;
            r.heartbeat = None;
            r.started_at = END - waited_ms * MS;
            r.open_failure = Some(failure);
        })
    };
    check(open(OpenFailure::Refused, 1), "serve_refused refused serve upstream upstream_closed proven");
    check(open(OpenFailure::Unreach, 1), "serve_refused unreach serve upstream upstream_closed proven");
    check(
        open(OpenFailure::ConnectTimeout, 5_000),
        "serve_timeout connect_timeout serve upstream upstream_closed proven",
    );
    check(
        open(OpenFailure::HandshakeTimeout, 15_000),
        "serve_timeout handshake_timeout serve upstream upstream_closed proven",
    );
    check(
        open(OpenFailure::HandshakeEof, 1),
        "serve_left handshake_eof serve upstream upstream_closed proven",
    );
    check(
        open(OpenFailure::HandshakeReset, 1),
        "serve_reset handshake_eof serve upstream upstream_closed proven",
    );
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
        open(OpenFailure::ClientGone, 15_000),
        "serve_timeout handshake_timeout serve downstream downstream_closed likely",
    );
    // Chromium connects to one address one after the other: a second tab's attempt has had only the
    // rest of its time here.
    let halted = |k: &mut KernelFacts| k.peer.as_mut().unwrap().halted = Some(Halt::Stopped);
    check(
        open(OpenFailure::ClientGone, 7_000).kernel(halted),
        "serve_timeout handshake_timeout serve downstream downstream_closed likely",
    );
    check(
        open(OpenFailure::ClientGone, 200).kernel(halted),
        "client_left fin downstream downstream downstream_closed likely",
    );
    check(
        open(OpenFailure::Local(24), 1),
        "dispatch_stalled local_error:24 dispatch dispatch dispatch_closed proven",
    );
}
