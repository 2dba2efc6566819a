//! Pairs of connections that one proxy process accepted and opened, so that they are the two legs
//! of one session. Pure.
//!
//! A pair is one that is certain; all other connections stay single:
//! - both belong to one process, and both ended within [`HELD`];
//! - they agree in [`WINDOWS`] windows with traffic, and in their totals at the end
//!   ([`agreement`]);
//! - the peer of one of them ended it and the proxy ended the other right after it, or their
//!   traffic had [`SIZES`] different sizes;
//! - no third connection agrees with either of them; those with equal traffic do. Only of a pair
//!   that the proxy ended in this way, connections that agree may remain: none may have ended near
//!   that time.
//!
//! A pair is never made by time alone.

mod agreement;
mod history;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::Hash,
};

use t3_record::evidence::{Nanos, SocketFacts};

use agreement::Agreement;
use history::History;
pub(crate) use history::Sample;

const MS: Nanos = 1_000_000;
/// Windows in which the legs of a pair agree.
const WINDOWS: u32 = 3;
/// Different sizes of the traffic in these windows, unless the ends belong together.
const SIZES: usize = 3;
/// Windows after which another connection is not excluded although an older window disagrees.
const RIVAL_WINDOWS: u32 = 2;
/// Passes without an open connection after which it is forgotten: its close was lost.
const MISSED: u8 = 3;
/// Time for which a closed connection waits for its partner.
pub(crate) const HELD: Nanos = 1_000 * MS;
/// Time without traffic before a sample that counts: that of forwarding.
const QUIET: Nanos = 250 * MS;
/// Maximum time between the end of one leg and that of the other by the proxy.
const COUPLED: Nanos = 100 * MS;
/// Time around the end of a pair in which no connection that agrees with it may have ended.
const ALONE: Nanos = 900 * MS;
/// Open connections: bounds the memory of a privileged process.
const MOST_OPEN: usize = 20_000;
/// Closed connections that are remembered: each can be the partner of an open one.
const MOST_CLOSED: usize = 20_000;

/// Direction of a connection, as seen from the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// Accepted.
    Down,
    /// Opened by the proxy.
    Up,
}

const BOTH: [Direction; 2] = [Direction::Down, Direction::Up];

/// First acts on a connection: `received` from its peer, `sent` by the proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Acts {
    pub(crate) received: Option<Nanos>,
    pub(crate) sent: Option<Nanos>,
}

impl Acts {
    pub(crate) fn of(socket: &SocketFacts) -> Self {
        let first = |times: [Option<Nanos>; 3]| times.into_iter().flatten().min();
        Self {
            received: first([socket.fin_in, socket.rst_in, socket.error.map(|(_, at)| at)]),
            sent: first([socket.fin_out, socket.rst_out, None]),
        }
    }

    fn first(self) -> Option<Nanos> {
        self.received.into_iter().chain(self.sent).min()
    }

    /// Time at which the peer ended the connection, if it was before the proxy.
    fn by_peer(self) -> Option<Nanos> {
        self.received.filter(|received| self.sent.is_none_or(|sent| *received <= sent))
    }

    /// The proxy ended the other connection right after the peer had ended this one.
    fn led_to(self, other: Self) -> bool {
        let sent = other.sent.filter(|_| other.by_peer().is_none());
        let both = self.by_peer().zip(sent);
        both.is_some_and(|(received, sent)| sent >= received && sent - received <= COUPLED)
    }
}

/// End of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Time of its close.
    pub(crate) at: Nanos,
    pub(crate) acts: Acts,
    /// Bytes received and sent, if known.
    pub(crate) totals: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Leg<T> {
    history: History,
    ending: Option<Ending>,
    /// Passes in a row that did not find it open.
    missed: u8,
    /// What becomes of it is not decided.
    held: Option<T>,
}

#[derive(Debug)]
struct Process<K, T> {
    downs: HashMap<K, Leg<T>>,
    ups: HashMap<K, Leg<T>>,
}

/// Connections of proxies, by process and key; `T` is what the caller needs of a closed one.
#[derive(Debug)]
pub(crate) struct Pairs<K, T> {
    processes: HashMap<u32, Process<K, T>>,
    open: usize,
    /// Closed connections, the oldest first.
    closed: VecDeque<(Nanos, u32, Direction, K)>,
    /// Held connections, the oldest first.
    waiting: VecDeque<(Nanos, u32, Direction, K)>,
    /// The daemon stops: none is held any more.
    is_finished: bool,
    /// The latest close of a forgotten connection: evidence from before can belong to it.
    horizon: Nanos,
}

/// Decided connections.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    Pair { down: T, up: T },
    Single(T),
}

impl<K, T> Default for Process<K, T> {
    fn default() -> Self {
        Self { downs: HashMap::new(), ups: HashMap::new() }
    }
}

impl<K, T> Default for Pairs<K, T> {
    fn default() -> Self {
        Self {
            processes: HashMap::new(),
            open: 0,
            closed: VecDeque::new(),
            waiting: VecDeque::new(),
            is_finished: false,
            horizon: 0,
        }
    }
}

impl<K: Eq + Hash, T> Process<K, T> {
    fn legs(&self, direction: Direction) -> &HashMap<K, Leg<T>> {
        match direction {
            Direction::Down => &self.downs,
            Direction::Up => &self.ups,
        }
    }

    fn legs_mut(&mut self, direction: Direction) -> &mut HashMap<K, Leg<T>> {
        match direction {
            Direction::Down => &mut self.downs,
            Direction::Up => &mut self.ups,
        }
    }
}

fn other(direction: Direction) -> Direction {
    match direction {
        Direction::Down => Direction::Up,
        Direction::Up => Direction::Down,
    }
}

impl<K: Copy + Eq + Hash, T> Pairs<K, T> {
    /// Begins a pass: these connections are open.
    pub(crate) fn begin_pass(&mut self, open: &[(u32, Direction, K)], now: Nanos) {
        for (pid, direction, key) in open {
            self.open(*pid, *direction, *key, now);
        }
        let open: HashSet<(u32, Direction, K)> = open.iter().copied().collect();
        let mut lost = Vec::new();
        for (pid, process) in &mut self.processes {
            for direction in BOTH {
                for (key, leg) in process.legs_mut(direction) {
                    let is_open = leg.ending.is_some() || open.contains(&(*pid, direction, *key));
                    leg.missed = if is_open { 0 } else { leg.missed + 1 };
                    if leg.missed >= MISSED {
                        lost.push((*pid, direction, *key));
                    }
                }
            }
        }
        for (pid, direction, key) in lost {
            self.forget(pid, direction, key, now);
        }
    }

    fn open(&mut self, pid: u32, direction: Direction, key: K, now: Nanos) {
        let is_full = self.open >= MOST_OPEN;
        if is_full && !self.processes.contains_key(&pid) {
            return;
        }
        let legs = self.processes.entry(pid).or_default().legs_mut(direction);
        match legs.entry(key) {
            Entry::Occupied(_) => {}
            // It can be the partner of any of the others.
            Entry::Vacant(_) if is_full => self.horizon = now,
            Entry::Vacant(place) => {
                place.insert(Leg { history: History::default(), ending: None, missed: 0, held: None });
                self.open += 1;
            }
        }
    }

    /// Forgets an open connection whose close was lost.
    fn forget(&mut self, pid: u32, direction: Direction, key: K, now: Nanos) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let legs = process.legs_mut(direction);
        if legs.get(&key).is_some_and(|leg| leg.ending.is_none())
            && let Some(leg) = legs.remove(&key)
        {
            self.open -= 1;
            if leg.history.has_moved() {
                self.horizon = now;
            }
        }
        if process.downs.is_empty() && process.ups.is_empty() {
            self.processes.remove(&pid);
        }
    }

    /// Open connections of which samples are needed: of processes with both directions.
    pub(crate) fn wanted(&self) -> Vec<(u32, Direction, K)> {
        let is_open = |(_, leg): &(&K, &Leg<T>)| leg.ending.is_none();
        let mut wanted = Vec::new();
        for (pid, process) in &self.processes {
            if BOTH.iter().all(|direction| process.legs(*direction).iter().any(|leg| is_open(&leg))) {
                for direction in BOTH {
                    let open = process.legs(direction).iter().filter(is_open);
                    wanted.extend(open.map(|(key, _)| (*pid, direction, *key)));
                }
            }
        }
        wanted
    }

    /// Adds a sample; the reading of all began at `at`.
    pub(crate) fn sample(&mut self, pid: u32, direction: Direction, key: K, at: Nanos, sample: Sample) {
        let process = self.processes.get_mut(&pid);
        if let Some(leg) = process.and_then(|process| process.legs_mut(direction).get_mut(&key))
            && leg.ending.is_none()
        {
            leg.history.add(at, QUIET, sample);
        }
    }

    /// A connection closed. Returns `item` if it cannot be one of a pair; else [`Pairs::due`] does
    /// later.
    pub(crate) fn close(
        &mut self,
        pid: u32,
        direction: Direction,
        key: K,
        ending: Ending,
        item: T,
    ) -> Option<T> {
        let Some(process) = self.processes.get_mut(&pid).filter(|_| !self.is_finished) else {
            return Some(item);
        };
        let Some(leg) = process.legs_mut(direction).get_mut(&key).filter(|leg| leg.ending.is_none()) else {
            return Some(item);
        };
        self.open -= 1;
        if !leg.history.has_moved() {
            process.legs_mut(direction).remove(&key);
            if process.downs.is_empty() && process.ups.is_empty() {
                self.processes.remove(&pid);
            }
            return Some(item);
        }
        leg.ending = Some(ending);
        leg.held = Some(item);
        self.closed.push_back((ending.at, pid, direction, key));
        self.waiting.push_back((ending.at, pid, direction, key));
        None
    }

    /// Decides the connections that have waited for long enough, or all. `acts` returns those of an
    /// open connection.
    pub(crate) fn due(&mut self, now: Nanos, all: bool, acts: impl Fn(&K) -> Acts) -> Vec<Outcome<T>> {
        let mut decided = Vec::new();
        self.is_finished |= all;
        while let Some((at, pid, direction, key)) =
            self.waiting.pop_front_if(|(at, ..)| all || at.saturating_add(HELD) <= now)
        {
            let is_held = |leg: &Leg<T>| leg.held.is_some();
            let Some(process) = self.processes.get(&pid) else { continue };
            if !process.legs(direction).get(&key).is_some_and(is_held) {
                continue;
            }
            let has_waited = at.saturating_add(HELD) <= now;
            let partner =
                Decision { process, horizon: self.horizon, acts: &acts, has_waited }.partner(direction, &key);
            let Some(process) = self.processes.get_mut(&pid) else { continue };
            let mut take = |direction, key| process.legs_mut(direction).get_mut(&key)?.held.take();
            let item = take(direction, key);
            let of_partner = partner.and_then(|key| take(other(direction), key));
            decided.extend(match (direction, item, of_partner) {
                (Direction::Down, Some(down), Some(up)) | (Direction::Up, Some(up), Some(down)) => {
                    Some(Outcome::Pair { down, up })
                }
                (_, Some(item), _) => Some(Outcome::Single(item)),
                (_, None, _) => None,
            });
        }
        self.limit();
        decided
    }

    /// Time at which [`Pairs::due`] has the next decision.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        self.waiting.front().map(|(at, ..)| at.saturating_add(HELD))
    }

    fn limit(&mut self) {
        while self.closed.len() > MOST_CLOSED
            && let Some((at, pid, direction, key)) = self.closed.pop_front()
        {
            self.horizon = self.horizon.max(at);
            self.drop_closed(pid, direction, key);
        }
        // Nothing of it can be decided any more.
        while let Some((_, pid, direction, key)) = self.closed.front().copied() {
            let process = self.processes.get(&pid);
            let is_needed = process.is_some_and(|process| {
                let legs = process.downs.values().chain(process.ups.values());
                legs.into_iter().any(|leg| leg.ending.is_none() || leg.held.is_some())
            });
            if is_needed {
                break;
            }
            self.closed.pop_front();
            self.drop_closed(pid, direction, key);
        }
    }

    fn drop_closed(&mut self, pid: u32, direction: Direction, key: K) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let legs = process.legs_mut(direction);
        if legs.get(&key).is_some_and(|leg| leg.ending.is_some() && leg.held.is_none()) {
            legs.remove(&key);
        }
        if process.downs.is_empty() && process.ups.is_empty() {
            self.processes.remove(&pid);
        }
    }
}

struct Decision<'a, K, T, F> {
    process: &'a Process<K, T>,
    horizon: Nanos,
    acts: &'a F,
    /// It is known which other connections ended at that time.
    has_waited: bool,
}

impl<K: Copy + Eq + Hash, T, F: Fn(&K) -> Acts> Decision<'_, K, T, F> {
    /// The partner of a closed connection, if there is one for certain.
    fn partner(&self, direction: Direction, key: &K) -> Option<K> {
        let leg = self.process.legs(direction).get(key)?;
        let agreeing = self.agreeing(direction, leg);
        let mut certain = agreeing.iter().filter_map(|(key_of_other, partner, agreement)| {
            partner.held.as_ref()?;
            let ends = self.ends(leg, partner, agreement)?;
            let rivals = agreeing.iter().filter(|(key, ..)| key != key_of_other);
            self.excludes(&ends, rivals).then_some(())?;
            let back = self.agreeing(other(direction), partner);
            let rivals = back.iter().filter(|(other, ..)| other != key);
            self.excludes(&ends, rivals).then_some(*key_of_other)
        });
        let found = certain.next()?;
        certain.next().is_none().then_some(found)
    }

    /// Connections of the other direction that can be the partner of this one.
    fn agreeing(&self, direction: Direction, leg: &Leg<T>) -> Vec<(K, &Leg<T>, Agreement)> {
        let others = self.process.legs(other(direction)).iter();
        let agreeing = others.filter_map(|(key, candidate)| {
            let (down, up) = match direction {
                Direction::Down => (leg, candidate),
                Direction::Up => (candidate, leg),
            };
            let agreement = Agreement::of(&down.history, &up.history, self.horizon);
            let least = if agreement.is_contradicted { RIVAL_WINDOWS } else { 1 };
            (agreement.windows >= least && agreement.allows_ends(down.ending, up.ending))
                .then_some((*key, candidate, agreement))
        });
        agreeing.collect()
    }

    /// How the ends of both belong together, if they can be a pair.
    fn ends(&self, leg: &Leg<T>, partner: &Leg<T>, agreement: &Agreement) -> Option<Ends> {
        let (own, of_partner) = (leg.ending?.acts, partner.ending?.acts);
        let first = (own.first()?, of_partner.first()?);
        let is_coupled = own.led_to(of_partner) || of_partner.led_to(own);
        let is_pair = agreement.windows >= WINDOWS
            && first.0.abs_diff(first.1) <= HELD
            && (is_coupled || agreement.sizes >= SIZES);
        is_pair.then_some(Ends { first, is_coupled })
    }

    /// Whether the ends exclude all rivals.
    fn excludes<'b>(&self, ends: &Ends, rivals: impl Iterator<Item = &'b (K, &'b Leg<T>, Agreement)>) -> bool
    where
        K: 'b,
        T: 'b,
    {
        let near = |end: Nanos| end.abs_diff(ends.first.0).min(end.abs_diff(ends.first.1)) <= ALONE;
        let mut rivals = rivals;
        rivals.all(|(key, rival, _)| {
            let acts = rival.ending.map_or_else(|| (self.acts)(key), |ending| ending.acts);
            let ended = [acts.received, acts.sent, rival.ending.map(|ending| ending.at)];
            ends.is_coupled && self.has_waited && !ended.into_iter().flatten().any(near)
        })
    }
}

/// Ends of two legs.
struct Ends {
    first: (Nanos, Nanos),
    /// The proxy ended one right after the other had ended.
    is_coupled: bool,
}

impl Agreement {
    fn allows_ends(&self, down: Option<Ending>, up: Option<Ending>) -> bool {
        let totals = |ending: Option<Ending>| ending.and_then(|ending| ending.totals);
        totals(down).zip(totals(up)).is_none_or(|(down, up)| self.allows(down, up))
    }
}
