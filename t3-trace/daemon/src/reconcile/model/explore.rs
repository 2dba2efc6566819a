//! Exploration of all states, breadth first, and the recovery from each of them.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::{Hash, Hasher},
};

use super::{
    super::ledger::State as Progress,
    state::{Cause, Left, Pass, Rules, Session, State, Trace, name},
    steps::Step,
};

/// Violated property of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Violation {
    /// The journal has more than one close.
    Second,
    /// The journal has a close of a session that is open.
    Early,
    /// All processes run and nothing is left to do, the session has ended, and the journal has no
    /// close.
    Missing,
    /// As `Missing`, until dispatch ends.
    Delayed,
}

/// Result of an exploration.
#[derive(Debug, Default)]
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) steps: usize,
    /// Shortest path to each violation, and the recovery from there.
    pub(super) violations: BTreeMap<Violation, Vec<Step>>,
    /// Losses that the protocol does not prevent: the fewest failures, and a path with them.
    pub(super) lost: BTreeMap<Cause, (u8, Vec<Step>)>,
}

struct Explorer {
    left: Left,
    rules: Rules,
    /// Step that first led to a state, and the state before.
    parents: HashMap<u64, Option<(u64, Step)>>,
    /// States whose recovery is known.
    recovered: HashSet<u64>,
    result: Explored,
}

/// Hasher that multiplies and folds: in a debug build it takes half the time of the standard one.
struct Folded(u64);

impl Folded {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    fn add(&mut self, value: u64) {
        let value = self.0 ^ value ^ 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(value) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.add(value.into());
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.add(value as u64);
    }
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = Folded(0);
    state.hash(&mut hasher);
    hasher.finish()
}

/// Explores all states with up to `sessions` sessions and the failures of `left`. Stops at the
/// first violation if `is_control`.
pub(super) fn explore(sessions: usize, left: Left, rules: Rules, is_control: bool) -> Explored {
    let first = State::new(sessions, left);
    let mut explorer = Explorer {
        left,
        rules,
        parents: HashMap::from([(fingerprint(&first), None)]),
        recovered: HashSet::new(),
        result: Explored::default(),
    };
    let mut queue = VecDeque::from([first]);
    while let Some(state) = queue.pop_front() {
        explorer.check(&state);
        if is_control && !explorer.result.violations.is_empty() {
            break;
        }
        let at = fingerprint(&state);
        for step in state.steps() {
            explorer.result.steps += 1;
            let next = state.after(step, rules);
            explorer.parents.entry(fingerprint(&next)).or_insert_with(|| {
                queue.push_back(next);
                Some((at, step))
            });
        }
    }
    explorer.result.states = explorer.parents.len();
    explorer.result
}

impl Explorer {
    fn path(&self, state: &State) -> Vec<Step> {
        let mut path = Vec::new();
        let mut at = fingerprint(state);
        while let Some(Some((before, step))) = self.parents.get(&at) {
            path.push(*step);
            at = *before;
        }
        path.reverse();
        path
    }

    fn check(&mut self, state: &State) {
        for cause in state.observed.iter().filter_map(|observed| observed.lost_by) {
            let failures = self.left.sum() - state.left.sum();
            if self.result.lost.get(&cause).is_none_or(|(fewest, _)| failures < *fewest) {
                let path = self.path(state);
                self.result.lost.insert(cause, (failures, path));
            }
        }
        let mut recovery = Vec::new();
        for (violation, at) in self.recover(state, &mut recovery) {
            if !self.result.violations.contains_key(&violation) {
                let mut path = self.path(state);
                path.extend(&recovery[..at]);
                self.result.violations.insert(violation, path);
            }
        }
    }

    /// Runs everything until nothing changes, then ends dispatch, and again. Returns the
    /// violations, with the number of steps taken before each.
    fn recover(&mut self, state: &State, taken: &mut Vec<Step>) -> Vec<(Violation, usize)> {
        let mut state = state.clone();
        let mut chain = HashSet::new();
        let mut violations = Vec::new();
        loop {
            violations.extend(always(&state).into_iter().map(|violation| (violation, taken.len())));
            let at = fingerprint(&state);
            if self.recovered.contains(&at) {
                break;
            }
            let mut step = state.recovery(self.rules);
            if !chain.insert(at) {
                // A complete pass changed nothing.
                violations.extend(settled(&state).into_iter().map(|violation| (violation, taken.len())));
                if !state.is_dispatch_alive {
                    break;
                }
                step = Step::KillDispatch { sent: state.messages.len() };
            }
            taken.push(step);
            state = state.after(step, self.rules);
        }
        self.recovered.extend(chain);
        violations
    }
}

/// Violations in any state.
fn always(state: &State) -> Vec<Violation> {
    let of = |at| match state.closes(at) {
        0 => None,
        1 => state.is_open(at).then_some(Violation::Early),
        _ => Some(Violation::Second),
    };
    state.ids().filter_map(of).collect()
}

/// Violations in a state in which nothing is left to do.
fn settled(state: &State) -> Vec<Violation> {
    let of = |at: u8| {
        let observed = state.observed[usize::from(at)];
        let is_over = !matches!(state.sessions[usize::from(at)], Session::New | Session::Open);
        if !is_over || !observed.is_opened || state.closes(at) > 0 {
            return None;
        }
        if observed.is_counted_lost {
            return None;
        }
        let is_waiting = |trace: &Trace| trace.ledger.get(name(at)).is_some();
        if state.is_full && state.trace.as_ref().is_some_and(is_waiting) {
            return None;
        }
        match observed.lost_by {
            Some(Cause::Forgotten) => Some(Violation::Missing),
            Some(_) => None,
            None if state.is_dispatch_alive && observed.is_report_lost => Some(Violation::Delayed),
            None => Some(Violation::Missing),
        }
    };
    state.ids().filter_map(of).collect()
}

impl State {
    /// Next step while no failure occurs.
    fn recovery(&self, rules: Rules) -> Step {
        let Some(trace) = &self.trace else { return Step::StartTrace };
        let written = |at: &u8| matches!(self.sessions[usize::from(*at)], Session::Written { .. });
        let is_claimed = |at: &u8| {
            trace.ledger.get(name(*at)).is_some_and(|entry| matches!(entry.state, Progress::Claimed))
        };
        if self.is_full && !rules.stays_full {
            Step::Free
        } else if !self.records.is_empty() {
            Step::Send
        } else if let Some(at) = self.ids().find(written).filter(|_| self.is_dispatch_alive) {
            Step::Report(at)
        } else if self.is_dispatch_alive && !self.is_connected {
            Step::Connect
        } else if !self.messages.is_empty() {
            Step::Read
        } else if self.has_left(trace) {
            Step::Claim
        } else if let Some(at) = self.ids().find(is_claimed) {
            Step::Abandon(at)
        } else if !trace.writer.is_empty() {
            Step::SendRewritten
        } else if !trace.outcomes.is_empty() {
            Step::Outcome
        } else if !self.socket.is_empty() {
            Step::Write
        } else if trace.spool != self.cached {
            Step::Flush
        } else if self.cached != self.synced {
            Step::SyncSpool
        } else {
            match trace.pass {
                Pass::Idle => Step::StartPass,
                Pass::Sync => Step::Sync,
                Pass::Scan => Step::Scan,
                Pass::SyncAgain { .. } => Step::SyncAgain,
                Pass::Reconcile { .. } => Step::Reconcile,
                Pass::Search { .. } => Step::Search,
                Pass::Finish { .. } => Step::Finish,
            }
        }
    }
}
