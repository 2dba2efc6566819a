//! Reports of the live numbers of sessions, collected only while somebody watches.

use std::{collections::VecDeque, time::Duration};

use t3_record::wire::{
    self, ToTrace,
    live::{MOST_PULSES, StatsReport},
};
use tokio::time::{Instant, sleep_until};

use crate::relay::live_stats::Published;

/// How often is collected while somebody watches.
const EVERY: Duration = Duration::from_secs(1);
/// The longest that is believed of a wish to watch.
const LONGEST: Duration = Duration::from_secs(60);
/// At most so many sessions in one round; the others' turn comes with the next.
pub const MOST_IN_A_ROUND: usize = 8192;

/// When to collect, and what has been collected and not yet been sent, on one connection to
/// t3-trace.
#[derive(Debug)]
pub struct Rounds {
    until: Instant,
    next: Instant,
    /// The next round reports every session: the watcher has just connected.
    all: bool,
    messages: VecDeque<Vec<StatsReport>>,
}

impl Rounds {
    /// Nobody watches yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { until: now, next: now, all: true, messages: VecDeque::new() }
    }

    /// Somebody watches for as long.
    pub fn wanted(&mut self, ms: u64, now: Instant) {
        if self.until <= now {
            self.all = true;
            self.next = self.next.max(now);
        }
        self.until = self.until.max(now + Duration::from_millis(ms).min(LONGEST));
    }

    /// When the next round is due; `None` when nobody watches by then.
    fn due(&self) -> Option<Instant> {
        (self.next < self.until).then_some(self.next)
    }

    /// A round.
    fn round(&mut self, now: Instant, collect: impl FnOnce(bool) -> Vec<StatsReport>) {
        let pulses = collect(std::mem::take(&mut self.all));
        self.next = now + EVERY;
        self.messages.extend(pulses.chunks(MOST_PULSES).map(<[StatsReport]>::to_vec));
    }

    /// The next message, when there is one to be sent; pends when nobody watches. `collect`
    /// gives the pulses of a round, of all sessions or of those that have moved. Safe to cancel.
    pub async fn message(&mut self, collect: impl Fn(bool) -> Vec<StatsReport>) -> ToTrace {
        loop {
            if let Some(pulses) = self.messages.pop_front() {
                return ToTrace::Pulses { pulses };
            }
            match self.due() {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
            self.round(Instant::now(), &collect);
        }
    }
}

/// Collects a round from these sessions.
#[must_use]
pub fn collect<'a>(
    sessions: impl Iterator<Item = (&'a wire::Session, &'a Published)>,
    all: bool,
) -> Vec<StatsReport> {
    sessions.filter_map(|(who, live)| live.take(&who.conn, all)).take(MOST_IN_A_ROUND).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(count: usize) -> Vec<StatsReport> {
        (0..count).map(|n| StatsReport { conn: n.to_string(), ..StatsReport::default() }).collect()
    }

    /// Runs all rounds that are due, and says when they were and whether all were wanted.
    fn run(rounds: &mut Rounds, from: Instant) -> Vec<(u128, bool)> {
        let mut ran = Vec::new();
        while let Some(due) = rounds.due() {
            rounds.round(due, |all| {
                ran.push(((due - from).as_millis(), all));
                many(1)
            });
        }
        ran
    }

    #[test]
    fn nothing_is_collected_unless_somebody_watches_and_not_more_than_once_a_second() {
        let start = Instant::now();
        let mut rounds = Rounds::new(start);
        assert_eq!(run(&mut rounds, start), []);
        rounds.wanted(3500, start);
        assert_eq!(run(&mut rounds, start), [(0, true), (1000, false), (2000, false), (3000, false)]);
        // Asked again in time it goes on at its pace; a wish that comes after a pause finds
        // somebody who has forgotten.
        rounds.wanted(1500, start + Duration::from_millis(3400));
        assert_eq!(run(&mut rounds, start), [(4000, false)]);
        rounds.wanted(500, start + Duration::from_secs(60));
        assert_eq!(run(&mut rounds, start), [(60_000, true)]);
        // However often somebody asks.
        for ms in 0..900 {
            rounds.wanted(1, start + Duration::from_millis(60_001 + ms));
        }
        assert_eq!(run(&mut rounds, start), []);
    }

    #[tokio::test]
    async fn a_round_is_cut_into_messages() {
        let mut rounds = Rounds::new(Instant::now());
        rounds.wanted(1500, Instant::now());
        let mut told = Vec::new();
        for _ in 0..3 {
            let ToTrace::Pulses { pulses } = rounds.message(|_| many(2 * MOST_PULSES + 1)).await else {
                panic!("pulses")
            };
            told.push(pulses.len());
        }
        assert_eq!(told, [MOST_PULSES, MOST_PULSES, 1]);
    }

    #[test]
    fn no_wish_is_believed_for_ever() {
        let now = Instant::now();
        let mut rounds = Rounds::new(now);
        rounds.wanted(u64::MAX, now);
        assert_eq!(rounds.until - now, LONGEST);
    }

    #[test]
    fn a_round_is_bounded_and_the_rest_comes_next() {
        let who = wire::Session {
            conn: "c".into(),
            user: "u".into(),
            ip: "i".into(),
            ray: None,
            opened_at: None,
            down: None,
            up: None,
            serve_port: 1,
        };
        let live: Vec<Published> = (0..MOST_IN_A_ROUND + 5).map(|_| Published::default()).collect();
        let round = || collect(live.iter().map(|live| (&who, live)), false).len();
        assert_eq!((round(), round(), round()), (MOST_IN_A_ROUND, 5, 0));
    }
}
