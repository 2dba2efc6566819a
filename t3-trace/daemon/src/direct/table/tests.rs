//! Which closed connections get a record.

use t3_trace_host::clock::SECOND;

use super::*;

const OWN: u32 = 7;

/// A connection to a port from a client port, established at this second.
fn end(port: u16, client: u16, second: u64) -> End {
    let tuple = ServeTuple {
        local: format!("127.0.0.1:{port}").parse().unwrap(),
        remote: format!("[::ffff:127.0.0.1]:{client}").parse().unwrap(),
        netns: Some(OWN),
    };
    (tuple, Generation::of(second * SECOND))
}

fn listed((tuple, generation): End, is_outgoing: bool) -> OpenConnection {
    OpenConnection { tuple, generation, is_outgoing }
}

fn watching(ports: &[u16]) -> Table {
    let mut table = Table::new(OWN);
    table.set_ports(ports.iter().map(|port| WatchedPort::new(*port)).collect(), 100 * SECOND);
    table
}

fn opened(decision: (Decision, u64)) -> Option<(u64, bool)> {
    match decision.0 {
        Decision::Record { opened_at, is_older, .. } => Some((opened_at / SECOND, is_older)),
        _ => None,
    }
}

#[test]
fn a_connection_that_nobody_carries_gets_a_record() {
    let mut table = watching(&[80]);
    assert_eq!(opened(table.close(end(80, 1, 110), 150 * SECOND)), Some((110, false)));
    let older = (end(80, 1, 0).0, Generation::UNKNOWN);
    assert_eq!(opened(table.close(older, 150 * SECOND)), Some((100, true)), "since the watch");
    assert_eq!(table.close(end(81, 1, 110), 150 * SECOND), (Decision::Ignore, 0), "an unwatched port");
    table.set_ports(vec![WatchedPort::new(80), WatchedPort::new(81)], 200 * SECOND);
    assert_eq!(opened(table.close(older, 250 * SECOND)), Some((100, true)), "watched all the time");
}

#[test]
fn a_connection_of_dispatch_is_ignored_by_any_form_of_its_address() {
    let mut table = watching(&[80]);
    let (tuple, generation) = end(80, 1, 110);
    // As dispatch registers it: in the own namespace, IPv4.
    table.carried((ServeTuple { remote: "127.0.0.1:1".parse().unwrap(), netns: None, ..tuple }, generation));
    assert!(table.knows((tuple, generation)));
    assert_eq!(table.close((tuple, generation), 150 * SECOND), (Decision::Ignore, 0));
    // The next connection of the same tuple is another one.
    assert!(opened(table.close(end(80, 1, 120), 150 * SECOND)).is_some());
    let elsewhere = ServeTuple { netns: Some(OWN + 1), ..tuple };
    table.carried((tuple, generation));
    assert!(opened(table.close((elsewhere, generation), 150 * SECOND)).is_some(), "another namespace");
}

#[test]
fn a_search_does_not_undo_what_dispatch_registered() {
    let mut table = watching(&[80]);
    let sockets = Sockets { client: Some(3), server: 4 };
    table.set(end(80, 1, 110), Known { pending: Some(sockets), uid: Some(1000), ..Known::default() });
    let key = table.pending()[0].0;
    assert_eq!(table.pending(), [(key, sockets)]);
    let curl = Task { pid: 9, comm: "curl".into() };
    table.found(key, Some(curl.clone()), None);
    assert_eq!(table.pending(), []);
    let (Decision::Record { known, .. }, _) = table.close(end(80, 1, 110), 150 * SECOND) else { panic!() };
    assert_eq!((known.client, known.uid), (Client::Process(curl.clone()), Some(1000)));
    table.carried(end(80, 1, 110));
    table.found(key, Some(curl), None);
    assert_eq!(table.close(end(80, 1, 110), 150 * SECOND).0, Decision::Ignore);
}

#[test]
fn connections_are_identified_once_when_they_are_old_enough() {
    let mut table = watching(&[80]);
    let (young, old) = (end(80, 1, 149), end(80, 2, 140));
    let due = |table: &mut Table, open: &[End]| {
        let open: Vec<_> = open.iter().map(|end| listed(*end, false)).collect();
        let due = table.begin_pass(&open, 150 * SECOND, 2 * SECOND);
        due.into_iter().map(|(tuple, _)| tuple.remote.port()).collect::<Vec<_>>()
    };
    assert_eq!(due(&mut table, &[young, old]), [2]);
    table.set(old, Known::default());
    assert_eq!(due(&mut table, &[young, old]), [] as [u16; 0]);
    // One that is not listed as open may still be reported as closed, for a while.
    for _ in 1..MISSED {
        assert_eq!(due(&mut table, &[]), [] as [u16; 0]);
        assert!(table.knows(old));
    }
    due(&mut table, &[]);
    assert!(!table.knows(old));
}

#[test]
fn older_connections_are_read_once_per_port_and_never_missed() {
    let mut table = watching(&[80]);
    assert_eq!((table.take_unscanned(), table.take_unscanned()), (vec![80], vec![]));
    let older = (end(80, 1, 0).0, Generation::UNKNOWN);
    table.carried(older);
    for _ in 0..10 {
        table.begin_pass(&[], 150 * SECOND, 0);
    }
    assert_eq!(table.close(older, 150 * SECOND).0, Decision::Ignore);
    table.carried(older);
    table.set_ports(vec![WatchedPort::new(81)], 200 * SECOND);
    assert!(!table.knows(older));
    assert_eq!(table.take_unscanned(), [81]);
}

#[test]
fn the_budget_is_that_of_the_port() {
    let mut table = Table::new(OWN);
    let two = WatchedPort { budget: 2, ..WatchedPort::new(80) };
    table.set_ports(vec![two, WatchedPort::new(81)], 0);
    let mut close = |port, second| {
        let (decision, over) = table.close(end(port, 1, 100), second * SECOND);
        let kind = match decision {
            Decision::Record { .. } => "record",
            Decision::OverBudget { is_first: true } => "first",
            Decision::OverBudget { is_first: false } => "over",
            Decision::Ignore => "ignore",
        };
        (kind, over)
    };
    let all: Vec<_> = (0..4).map(|n| close(80, 200 + n).0).collect();
    assert_eq!(all, ["record", "record", "first", "over"]);
    assert_eq!(close(81, 204).0, "record");
    assert_eq!(close(80, 300), ("record", 2), "the rest of the minute before is reported");
}
