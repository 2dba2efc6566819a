//! Rows of deaths that take long, and of outages of the host's own network.

use super::{
    evidence_builder::{END, EvidenceBuilder, MS},
    tests::check,
    *,
};
use crate::evidence::*;

use Side::{Down, Up};

#[test]
fn a_fatal_signal_counts_from_when_it_was_sent() {
    // A thread closed the connection, and the process took long to end.
    let slow = |signalled: u64| {
        EvidenceBuilder::healthy().rst(Up, END).peer(Fate::Signal(9), END + 5_000 * MS).kernel(|k| {
            k.peer.as_mut().unwrap().signalled_at = Some(signalled);
        })
    };
    check(slow(END - MS), "serve_killed signal:9 serve upstream upstream_closed proven");
    check(slow(END + MS), "serve_reset rst serve upstream upstream_closed likely");
}

#[test]
fn an_outage_of_the_own_network_is_not_the_peer() {
    let event = |side, change, ms: u64| NetworkEvent { side, change, at: END - ms * MS };
    let s = |events: &[NetworkEvent]| EvidenceBuilder::healthy().kernel(|k| k.network = events.to_vec());
    let vanished = |events: &[NetworkEvent]| {
        s(events)
            .socket(Down, |t| t.error = Some((110, END)))
            .leg(Down, |l| l.end = Some((SeenEnd::Timeout, END)))
    };
    let downstream = "client_vanished vanished downstream dispatch downstream_closed proven";
    let own = "client_vanished vanished devvm dispatch downstream_closed likely";
    check(vanished(&[]), downstream);
    for change in [NetworkChange::LinkDown, NetworkChange::AddressRemoved, NetworkChange::RouteRemoved] {
        check(vanished(&[event(Down, change, 15_000)]), own);
        check(vanished(&[event(Up, change, 15_000)]), downstream);
    }
    let flap =
        |down, up| [event(Down, NetworkChange::LinkDown, down), event(Down, NetworkChange::LinkUp, up)];
    check(vanished(&flap(20_000, 8_000)), own);
    // Long over.
    check(vanished(&flap(40_000, 35_000)), downstream);
    check(vanished(&[event(Down, NetworkChange::LinkUp, 9_000)]), downstream);
    // A flap while the session is idle, and later a user who leaves.
    let left = |events: &[NetworkEvent]| s(events).close(Down, 1001, END);
    let closed = "client_closed ws_close:1001 downstream downstream downstream_closed";
    check(left(&flap(30_000, 29_000)), &format!("{closed} proven"));
    check(left(&flap(3_000, 2_000)), &format!("{closed} likely"));
    // The loopback itself.
    let events = [event(Up, NetworkChange::LinkDown, 15_000)];
    check(
        s(&events).socket(Up, |t| t.error = Some((113, END))),
        "serve_left unreach devvm dispatch upstream_closed likely",
    );
    // A death is seen by the kernel.
    check(
        s(&events).rst(Up, END).peer(Fate::Signal(9), END - MS),
        "serve_killed signal:9 serve upstream upstream_closed proven",
    );
}
