//! Orders of events around the end of a dispatch, with the sessions that they decide.

use std::collections::BTreeMap;

use t3_record::wire::Session;

use super::*;
use crate::sessions::{Entry, Sessions};

/// Start of each test, so that no time is 0.
const START: Nanos = 100 * SECOND;

/// The daemon, reduced to its decisions: [`Sessions`], [`PickUps`], and the tasks that settle an
/// ended connection.
struct Fixture {
    now: Nanos,
    sessions: Sessions,
    pick_ups: PickUps,
    /// Exited dispatches with sessions.
    exited: Vec<ConnectionId>,
    /// Records written by the daemon, by session.
    records: BTreeMap<String, u32>,
}

/// One event; numbers are those of the connection, whose process has ten times its number as pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Connects(u64),
    Listens(u64, u16),
    /// A session that is kept, and one that is not.
    Registers(u64, &'static str),
    RegistersUnkept(u64, &'static str),
    PicksUp(u64, &'static [&'static str]),
    Reports(&'static str),
    Disconnects(u64),
    Exits(u64),
    /// Seconds pass.
    Waits(u64),
    /// The tasks run.
    Settles,
}
use Event::*;

fn entry(conn: &str, connection: u64, kept: bool) -> Entry {
    let session = Session {
        conn: conn.to_owned(),
        user: "wizard".to_owned(),
        ip: "192.0.2.1".to_owned(),
        ray: None,
        opened_at: Some(1),
        down: None,
        up: None,
        serve_port: 3773,
        kept,
        resumed: 0,
    };
    Entry {
        session,
        connection: ConnectionId(connection),
        registered_at: 1,
        asked_at: None,
        detached_at: None,
        serve: None,
        dispatch_pid: u32::try_from(10 * connection).ok(),
        live_stats: None,
        ending: None,
        holder: None,
    }
}

impl Fixture {
    fn new() -> Self {
        Self {
            now: START,
            sessions: Sessions::default(),
            pick_ups: PickUps::default(),
            exited: Vec::new(),
            records: BTreeMap::new(),
        }
    }

    /// Dispatch 1 with the sessions `kept` and `unkept` on port 3780.
    fn with_sessions(kept: &[&'static str]) -> Self {
        let mut fixture = Self::new();
        fixture.run(&[Connects(1), Listens(1, 3780), RegistersUnkept(1, "unkept")]);
        kept.iter().for_each(|conn| fixture.event(Registers(1, conn)));
        fixture
    }

    fn run(&mut self, events: &[Event]) {
        events.iter().for_each(|event| self.event(*event));
    }

    fn event(&mut self, event: Event) {
        let id = ConnectionId;
        match event {
            Connects(n) => self.pick_ups.connected(id(n), u32::try_from(10 * n).ok()),
            Listens(n, port) => self.pick_ups.listens(id(n), &[port]),
            Registers(n, conn) => self.sessions.register(entry(conn, n, true)).unwrap(),
            RegistersUnkept(n, conn) => self.sessions.register(entry(conn, n, false)).unwrap(),
            PicksUp(n, ended) => {
                for conn in ended {
                    let pid = u32::try_from(10 * n).ok();
                    if self.sessions.hand_over(conn, id(n), pid).is_none() {
                        self.pick_ups.add_ended((*conn).to_owned(), id(n));
                    }
                }
                self.pick_ups.picked_up(id(n));
            }
            Reports(conn) => {
                self.sessions.done(conn);
                self.pick_ups.done(conn);
            }
            Disconnects(n) => {
                self.pick_ups.disconnected(id(n), self.now);
                if self.sessions.detach(id(n), self.now) == 0 {
                    self.pick_ups.settled(id(n));
                }
            }
            Exits(n) => {
                self.pick_ups.exited(id(n), self.now);
                self.exited.push(id(n));
            }
            Waits(seconds) => self.now += seconds * SECOND,
            Settles => {
                for id in self.exited.clone() {
                    let is_awaited = self.pick_ups.is_awaited(id, self.now);
                    for lost in self.sessions.take(id, is_awaited) {
                        *self.records.entry(lost.session.conn).or_default() += 1;
                    }
                    if self.sessions.count(id) == 0 {
                        self.pick_ups.settled(id);
                        self.exited.retain(|exited| *exited != id);
                    }
                }
            }
        }
    }

    /// Sessions with a record.
    fn recorded(&self) -> Vec<&str> {
        assert!(self.records.values().all(|records| *records == 1), "{:?}", self.records);
        self.records.keys().map(String::as_str).collect()
    }
}

#[test]
fn the_record_of_a_kept_session_is_written_when_no_successor_can_continue_it() {
    const DEATH: [Event; 2] = [Disconnects(1), Exits(1)];
    const SUCCESSOR: &[Event] = &[Connects(2), Listens(2, 3780)];
    const NO_SUCCESSOR: &[Event] = &[];
    const SUCCESSOR_DIES: [Event; 2] = [Disconnects(2), Exits(2)];
    let both: &[&str] = &["a", "unkept"];
    let dies_after = |event: Event, seconds| [&[event][..], &SUCCESSOR_DIES, &[Waits(seconds)]].concat();
    for (rule, successor, events, recorded) in [
        ("a session that is not kept has its record at the death", NO_SUCCESSOR, vec![], &["unkept"][..]),
        ("a successor has some time", NO_SUCCESSOR, vec![Waits(14)], &["unkept"]),
        ("but not more", NO_SUCCESSOR, vec![Waits(30)], both),
        ("one that registers it continues it", SUCCESSOR, vec![Registers(2, "a"), Waits(99)], &["unkept"]),
        ("one that registers all but this loses it", SUCCESSOR, vec![PicksUp(2, &[])], both),
        ("one that ends it writes the record", SUCCESSOR, vec![PicksUp(2, &["a"]), Waits(99)], &["unkept"]),
        ("unless it dies", SUCCESSOR, dies_after(PicksUp(2, &["a"]), 0), both),
        ("one that is slow is awaited", SUCCESSOR, vec![Waits(40), Settles, Registers(2, "a")], &["unkept"]),
        ("but not longer than the limit", SUCCESSOR, vec![Waits(60)], both),
        ("one that dies early leaves it to the next", SUCCESSOR, dies_after(Waits(9), 14), &["unkept"]),
        ("if there is one", SUCCESSOR, dies_after(Waits(9), 30), both),
        ("as it does with what it continued", SUCCESSOR, dies_after(Registers(2, "a"), 14), &["unkept"]),
        ("for as long", SUCCESSOR, dies_after(Registers(2, "a"), 30), both),
    ] {
        let mut fixture = Fixture::with_sessions(&["a"]);
        for events in [&DEATH, successor, &events, &[Settles]] {
            fixture.run(events);
        }
        assert_eq!(fixture.recorded(), recorded, "{rule}");
    }
}

#[test]
fn only_a_later_process_on_the_same_port_is_a_successor() {
    for (other, events, recorded) in [
        ("of another port", &[Connects(2), Listens(2, 4000), PicksUp(2, &[])][..], false),
        ("of another port, still starting", &[Connects(2), Listens(2, 4000), Waits(30)], true),
        ("with ports that are not known yet", &[Connects(2), Waits(30)], false),
        ("of the same port", &[Connects(2), Listens(2, 3780), PicksUp(2, &[])], true),
        // 0 has connected before.
        ("that runs for longer", &[PicksUp(0, &[])], false),
    ] {
        let mut fixture = Fixture::new();
        fixture.run(&[Connects(0), Listens(0, 3780), PicksUp(0, &[])]);
        fixture.run(&[Connects(1), Listens(1, 3780), Registers(1, "a"), Disconnects(1), Exits(1)]);
        fixture.run(events);
        fixture.event(Settles);
        assert_eq!(fixture.records.len(), usize::from(recorded), "{other}");
    }
}

#[test]
fn the_same_process_on_a_new_connection_is_not_its_own_successor() {
    let mut pick_ups = PickUps::default();
    for id in [1, 2] {
        pick_ups.connected(ConnectionId(id), Some(7));
    }
    pick_ups.disconnected(ConnectionId(1), START);
    pick_ups.picked_up(ConnectionId(2));
    assert!(pick_ups.is_awaited(ConnectionId(1), START + MAX_WAIT), "it runs");
    pick_ups.exited(ConnectionId(1), START + MAX_WAIT);
    assert!(pick_ups.is_awaited(ConnectionId(1), START + MAX_WAIT));
    assert!(!pick_ups.is_awaited(ConnectionId(1), START + MAX_WAIT + SUCCESSOR_TIMEOUT));
}

#[test]
fn a_dispatch_that_ended_without_a_connection_is_awaited_from_then_on() {
    let (end, timeout) = (START, SUCCESSOR_TIMEOUT);
    let mut pick_ups = PickUps::default();
    assert!(pick_ups.is_pid_awaited(7, end) && pick_ups.is_pid_awaited(7, end + timeout - 1));
    assert!(!pick_ups.is_pid_awaited(7, end + timeout));
    // Its successor connects, ends, and the next one picks up.
    let mut pick_ups = PickUps::default();
    assert!(pick_ups.is_pid_awaited(7, end));
    pick_ups.connected(ConnectionId(1), Some(8));
    assert!(pick_ups.is_pid_awaited(7, end + timeout), "registers");
    pick_ups.disconnected(ConnectionId(1), end + timeout);
    pick_ups.settled(ConnectionId(1));
    assert!(pick_ups.is_pid_awaited(7, end + 2 * timeout - 1));
    pick_ups.connected(ConnectionId(2), Some(9));
    pick_ups.picked_up(ConnectionId(2));
    assert!(!pick_ups.is_pid_awaited(7, end + 2 * timeout));
    pick_ups.connected(ConnectionId(3), Some(10));
    assert!(!pick_ups.is_pid_awaited(7, end + MAX_WAIT), "never longer than the limit");
}

#[test]
fn an_unregistered_session_that_dispatch_ends_is_its_own_until_it_disconnects() {
    let mut fixture = Fixture::new();
    fixture.run(&[Connects(1), PicksUp(1, &["a", "b"]), Reports("a")]);
    assert_eq!(["a", "b", "c"].map(|conn| fixture.pick_ups.is_ended(conn)), [false, true, false]);
    fixture.event(Disconnects(1));
    assert!(!fixture.pick_ups.is_ended("b"));
    for n in 0..=MAX_ENDED {
        fixture.pick_ups.add_ended(n.to_string(), ConnectionId(2));
    }
    assert_eq!(fixture.pick_ups.ended.len(), MAX_ENDED);
}

/// Interleavings of two sequences.
fn interleavings(one: &[Event], other: &[Event]) -> Vec<Vec<Event>> {
    let (Some((first, one_rest)), Some((second, other_rest))) = (one.split_first(), other.split_first())
    else {
        return vec![[one, other].concat()];
    };
    let with = |first: &Event, rest: Vec<Vec<Event>>| {
        rest.into_iter().map(|rest| [&[*first], rest.as_slice()].concat()).collect::<Vec<_>>()
    };
    let mut all = with(first, interleavings(one_rest, other));
    all.extend(with(second, interleavings(one, other_rest)));
    all
}

/// Runs the events with the tasks running after those that `mask` selects, then lets time pass.
fn run(events: &[Event], mask: u32) -> Fixture {
    let mut fixture = Fixture::with_sessions(&["continued", "ended", "lost"]);
    for (n, event) in events.iter().enumerate() {
        fixture.event(*event);
        if mask & (1 << n) != 0 {
            fixture.event(Settles);
        }
    }
    for _ in 0..3 {
        fixture.run(&[Settles, Waits(30)]);
    }
    fixture
}

#[test]
fn every_order_of_death_and_pick_up_leaves_one_record_per_session() {
    let successor = [
        Connects(2),
        Listens(2, 3780),
        Registers(2, "continued"),
        PicksUp(2, &["ended"]),
        Reports("ended"),
        Registers(2, "new"),
    ];
    let mut orders = 0;
    for events in interleavings(&[Disconnects(1), Exits(1)], &successor) {
        for mask in 0..1 << events.len() {
            let mut fixture = run(&events, mask);
            assert_eq!(fixture.recorded(), ["lost", "unkept"], "{events:?} {mask:b}");
            fixture.run(&[Disconnects(2), Exits(2), Waits(30), Settles]);
            assert_eq!(fixture.recorded(), ["continued", "lost", "new", "unkept"], "{events:?} {mask:b}");
            orders += 1;
        }
    }
    assert_eq!(orders, 28 * 256);
}

#[test]
fn a_successor_that_dies_at_any_moment_leaves_the_rest_to_the_next() {
    let steps = [Connects(2), Listens(2, 3780), Registers(2, "continued"), Registers(2, "lost")];
    let next =
        [Connects(3), Listens(3, 3780), Registers(3, "continued"), PicksUp(3, &["ended"]), Reports("ended")];
    for until in 1..=steps.len() {
        let one = [&steps[..until], &[Disconnects(2), Exits(2)], &next].concat();
        for events in interleavings(&[Disconnects(1), Exits(1)], &one) {
            for mask in [0, u32::MAX, 0x5555_5555, 0xAAAA_AAAA] {
                let fixture = run(&events, mask);
                assert_eq!(fixture.recorded(), ["lost", "unkept"], "{events:?} {mask:b}");
            }
        }
    }
}
