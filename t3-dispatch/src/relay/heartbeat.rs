//! t3's application heartbeat on one session: answered pings, their RTT and their period. Pure.
//!
//! The period differs between t3 versions, so it is learned: the median of the last intervals,
//! which one late ping does not change. Once a period is known, intervals with lost segments are
//! ignored, because the path causes them. A pong answers the oldest unanswered ping: serve answers
//! in order.

use serde::{Deserialize, Serialize};
use t3_record::{
    evidence::{Heartbeat, Nanos, SocketSample},
    vocabulary::{HeartbeatSource, Side},
};

use crate::relay::ack_tracker::AckTracker;

const OUTSTANDING: usize = 8;
const INTERVALS: usize = 16;
/// Shortest interval of any client, in nanoseconds.
const MIN_INTERVAL: u64 = 5_000_000;

/// A heartbeat message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatEvent {
    /// Sent by the client.
    Ping,
    /// serve's reply.
    Pong,
}

/// Recognises `{"_tag":"Ping"}` and `{"_tag":"Pong"}`, alone or as the only element of an array,
/// with any JSON whitespace.
#[must_use]
pub fn recognise(text: &[u8]) -> Option<HeartbeatEvent> {
    let inner = match eat(text, b"[") {
        Some(rest) => trim_end(rest).strip_suffix(b"]")?,
        None => text,
    };
    let rest = eat(inner, b"{")?;
    let rest = eat(rest, br#""_tag""#)?;
    let rest = eat(rest, b":")?;
    let (event, rest) = match (eat(rest, br#""Ping""#), eat(rest, br#""Pong""#)) {
        (Some(rest), _) => (HeartbeatEvent::Ping, rest),
        (_, Some(rest)) => (HeartbeatEvent::Pong, rest),
        _ => return None,
    };
    trim_end(eat(rest, b"}")?).is_empty().then_some(event)
}

fn eat<'a>(text: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    text.trim_ascii_start().strip_prefix(token)
}

fn trim_end(text: &[u8]) -> &[u8] {
    text.trim_ascii_end()
}

/// Intervals in a row that differ from the period by up to a sixteenth make a ping predictable.
const STABLE: usize = 3;
/// A ping that comes less than this earlier is jitter, in nanoseconds.
const MIN_EARLY: u64 = 1_000_000_000;

/// A ping, or several at once, earlier than the period allows: this host did not count the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyPing {
    /// Time of the last of them.
    pub at: Nanos,
    /// Time that is missing at least, in nanoseconds.
    pub missing: u64,
}

/// What a session knows about the time of a pause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionTiming {
    pub opened_at: Nanos,
    pub early: Option<EarlyPing>,
    /// Its last pings were punctual: a pause as long as their period would have delayed one.
    pub is_steady: bool,
}

/// Heartbeat state of one session.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HeartbeatTracker {
    facts: Heartbeat,
    /// Times of the oldest unanswered pings; further pings are only counted.
    waiting: [Nanos; OUTSTANDING],
    /// In microseconds, at most 71 minutes.
    intervals: [u32; INTERVALS],
    interval_count: u32,
    /// The last interval, until a socket sample decides whether it counts.
    new_interval: Option<u64>,
    /// A ping arrived since the last sample.
    sample_due: bool,
    /// The previous sample had no lost segments.
    lossless: bool,
    acks: AckTracker,
    /// Pings since the last frame of the other side.
    silent_pings: u32,
    /// RTTs not yet returned by [`HeartbeatTracker::take_rtts`].
    rtts: [u64; OUTSTANDING],
    rtt_count: u8,
    /// The last intervals, of all pings, newest last.
    last: [u64; STABLE],
    early: Option<EarlyPing>,
}

impl HeartbeatTracker {
    /// Continues with the facts of another process. `is_current`: the side that replies has sent
    /// nothing after them. Otherwise a reply may have come, and no ping counts as waiting.
    #[must_use]
    pub(super) fn resume(facts: Heartbeat, is_current: bool) -> Self {
        let mut tracker = Self { facts, ..Self::default() };
        if !is_current {
            tracker.life();
            tracker.facts.unanswered = 0;
            tracker.facts.waiting_since = None;
        }
        let last = facts.last_ping_at.unwrap_or_default();
        tracker.waiting = [last; OUTSTANDING];
        tracker.waiting[0] = facts.waiting_since.unwrap_or(last);
        if let Some(period) = facts.period_ns {
            tracker.intervals[..2].fill(micros(period));
            tracker.interval_count = 2;
        }
        tracker
    }

    /// Whether a tracker from another process can be used.
    pub(super) fn is_possible(&self) -> bool {
        usize::from(self.rtt_count) <= OUTSTANDING && self.acks.is_possible()
    }

    /// Pings and pongs together, and unanswered pings.
    #[must_use]
    pub(super) fn counts(&self) -> (u64, u32) {
        (self.facts.pings.wrapping_add(self.facts.pongs), self.facts.unanswered)
    }

    /// Creates a tracker for pings of `sender`.
    #[must_use]
    pub fn new(source: HeartbeatSource, sender: Side) -> Self {
        let facts =
            Heartbeat { source: Some(source), is_by_serve: sender == Side::Up, ..Heartbeat::default() };
        Self { facts, ..Self::default() }
    }

    /// Records a frame of any kind from the side that answers pings.
    pub fn life(&mut self) {
        // Each further ping was sent at a tick without a frame, and the client did not close.
        self.facts.survived = self.facts.survived.max(self.silent_pings.saturating_sub(1));
        self.facts.silent_since = None;
        self.silent_pings = 0;
    }

    /// Records a frame that answers all pings before it.
    pub fn pong_all(&mut self, now: Nanos, end: u64) {
        let unanswered = self.facts.unanswered;
        if unanswered == 0 {
            return;
        }
        self.facts.pongs += u64::from(unanswered - 1);
        self.facts.unanswered = 1;
        self.pong(now, end);
        self.facts.waiting_since = None;
    }

    /// Whether a ping is unanswered.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.facts.unanswered > 0
    }

    /// Records a ping.
    pub fn ping(&mut self, now: Nanos) {
        if !self.facts.is_by_serve {
            self.acks.start(now);
            self.sample_due = true;
        }
        self.facts.silent_since.get_or_insert(now);
        self.silent_pings = self.silent_pings.saturating_add(1);
        if let Some(last) = self.facts.last_ping_at {
            let interval = now.saturating_sub(last);
            if !self.facts.is_by_serve {
                self.note_early(interval, now);
            }
            // Queued pings that arrive in one read do not count as intervals, and the silence
            // before them is kept.
            if interval >= MIN_INTERVAL {
                self.facts.last_interval_ns = Some(interval);
                // No sample was taken since the previous ping.
                self.learn(true);
                self.new_interval = Some(interval);
            }
        }
        self.facts.pings += 1;
        self.facts.last_ping_at = Some(now);
        if let Some(slot) = self.waiting.get_mut(self.facts.unanswered as usize) {
            *slot = now;
        }
        self.facts.unanswered = self.facts.unanswered.saturating_add(1);
        self.facts.waiting_since = Some(self.waiting[0]);
    }

    /// A client's timer does not run ahead: a ping that follows three punctual ones after a much
    /// shorter time means that this host did not count the difference. Pings that queued meanwhile
    /// follow at once, and each stands for a period. Delays on the way make an interval long first.
    fn note_early(&mut self, interval: u64, now: Nanos) {
        if let Some(period) = self.period() {
            let missing = period.saturating_sub(interval);
            let is_early = missing >= (period / 4).max(MIN_EARLY);
            let is_stable = self.is_stable(period);
            let queued = self.early.filter(|early| Some(early.at) == self.facts.last_ping_at);
            self.early = match queued {
                Some(early) if is_early => Some(EarlyPing { at: now, missing: early.missing + missing }),
                None if is_early && is_stable => Some(EarlyPing { at: now, missing }),
                _ => self.early,
            };
        }
        self.last.rotate_left(1);
        self.last[STABLE - 1] = interval;
    }

    fn is_stable(&self, period: u64) -> bool {
        self.last.iter().all(|interval| interval.abs_diff(period) <= period / 16)
    }

    /// The client's last pings were punctual, and until `at` none was missing.
    #[must_use]
    pub fn is_steady(&self, at: Nanos) -> bool {
        let Some((period, last)) = self.period().zip(self.facts.last_ping_at) else { return false };
        !self.facts.is_by_serve && self.is_stable(period) && at.saturating_sub(last) <= period + period / 4
    }

    /// The last early ping.
    #[must_use]
    pub fn early(&self) -> Option<EarlyPing> {
        self.early
    }

    /// Adds a sample of the downstream socket, taken after a ping or at the end: bytes of the
    /// stream towards the client that are `acknowledged`, and segments `lost` since its start.
    pub fn sample(&mut self, now: Nanos, acknowledged: u64, lost: u32) {
        self.sample_due = false;
        let (waiting, period) = (self.facts.waiting_since, self.period());
        let lossless = self.acks.sample(now, acknowledged, lost, waiting, period);
        // A ping that a loss delayed can arrive after the sample that shows the loss.
        self.learn(lossless && self.lossless);
        self.lossless = lossless;
    }

    /// A ping arrived since the last sample.
    #[must_use]
    pub fn sample_due(&self) -> bool {
        self.sample_due
    }

    /// The samples, oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<SocketSample> {
        self.acks.samples()
    }

    /// Time at which the oldest unacknowledged reply passed.
    #[must_use]
    pub fn unacknowledged_since(&self) -> Option<Nanos> {
        self.acks.unacknowledged_since()
    }

    fn learn(&mut self, lossless: bool) {
        let Some(interval) = self.new_interval.take() else { return };
        if lossless || self.period().is_none() {
            self.intervals[self.interval_count as usize % INTERVALS] = micros(interval);
            self.interval_count = self.interval_count.saturating_add(1);
        }
    }

    /// Records a pong of serve that ends at offset `end` of the stream towards the client.
    pub fn pong(&mut self, now: Nanos, end: u64) {
        self.facts.pongs += 1;
        self.facts.last_pong_at = Some(now);
        if self.facts.unanswered == 0 {
            return;
        }
        self.life();
        let rtt = now.saturating_sub(self.waiting[0]);
        self.facts.rtt_ns = Some(rtt);
        if !self.facts.is_by_serve {
            self.acks.add_reply(end, now, rtt);
            if let Some(slot) = self.rtts.get_mut(usize::from(self.rtt_count)) {
                *slot = rtt;
                self.rtt_count += 1;
            }
        }
        self.facts.rtt_max_ns = Some(self.facts.rtt_max_ns.unwrap_or(0).max(rtt));
        self.waiting.rotate_left(1);
        // The times of pings beyond the list are unknown; the time of the last one never
        // overstates the wait.
        self.waiting[OUTSTANDING - 1] = self.facts.last_ping_at.unwrap_or(now);
        self.facts.unanswered -= 1;
        self.facts.waiting_since = (self.facts.unanswered > 0).then_some(self.waiting[0]);
    }

    /// Returns the RTTs in nanoseconds since the last call, up to `OUTSTANDING`.
    pub fn take_rtts(&mut self) -> &[u64] {
        let count = std::mem::take(&mut self.rtt_count);
        self.rtts.get(..count.into()).unwrap_or_default()
    }

    /// RTT of the last answered ping in nanoseconds, and time of the oldest unanswered ping.
    #[must_use]
    pub fn latest(&self) -> (Option<u64>, Option<Nanos>) {
        if self.facts.is_by_serve {
            return (None, None);
        }
        (self.facts.rtt_ns, self.facts.waiting_since)
    }

    /// The facts so far; `None` before the first ping, because replies alone are not a heartbeat.
    #[must_use]
    pub fn facts(&self) -> Option<Heartbeat> {
        (self.facts.pings > 0).then(|| Heartbeat { period_ns: self.period(), ..self.facts })
    }

    /// Median of the last intervals; needs two.
    fn period(&self) -> Option<u64> {
        let mut sorted = [0; INTERVALS + 1];
        sorted[..INTERVALS].copy_from_slice(&self.intervals);
        let mut known = INTERVALS.min(self.interval_count as usize);
        if let Some(interval) = self.new_interval {
            sorted[known] = micros(interval);
            known += 1;
        }
        if known < 2 {
            return None;
        }
        let sorted = &mut sorted[..known];
        sorted.sort_unstable();
        sorted.get((known - 1) / 2).map(|interval| u64::from(*interval) * 1_000)
    }
}

fn micros(nanos: u64) -> u32 {
    u32::try_from(nanos / 1_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn pings_and_pongs_are_recognised_with_any_whitespace() {
        for (text, event) in [
            (r#"{"_tag":"Ping"}"#, Some(HeartbeatEvent::Ping)),
            (r#"{"_tag":"Pong"}"#, Some(HeartbeatEvent::Pong)),
            (" {\n \"_tag\" : \"Pong\" }\n", Some(HeartbeatEvent::Pong)),
            (r#"[{"_tag":"Ping"}]"#, Some(HeartbeatEvent::Ping)),
            (r#"[{"_tag":"Ping"}"#, None),
            (r#"{"_tag":"Ping"} x"#, None),
            (r#"{"_tag":"Ping","id":1}"#, None),
            (r#"{"_tag":"Pingu"}"#, None),
            (r#"{"tag":"Ping"}"#, None),
            ("", None),
            ("[", None),
        ] {
            assert_eq!(recognise(text.as_bytes()), event, "{text:?}");
        }
    }

    #[test]
    fn answered_pings_have_an_rtt_and_do_not_wait() {
        let mut tracker = HeartbeatTracker::default();
        assert_eq!(tracker.facts(), None);
        for n in 1..=4 {
            tracker.ping(n * 5 * SECOND);
            tracker.pong(n * 5 * SECOND + n * 1000, 0);
        }
        let facts = tracker.facts().unwrap();
        assert_eq!((facts.pings, facts.pongs, facts.unanswered), (4, 4, 0));
        assert_eq!((facts.rtt_ns, facts.rtt_max_ns), (Some(4000), Some(4000)));
        assert_eq!((facts.waiting_since, facts.period_ns), (None, Some(5 * SECOND)));
    }

    #[test]
    fn a_pong_answers_the_oldest_ping() {
        let mut tracker = HeartbeatTracker::default();
        for n in 1..=3 {
            tracker.ping(n * SECOND);
        }
        assert_eq!(tracker.facts().unwrap().waiting_since, Some(SECOND));
        tracker.pong(4 * SECOND, 0);
        let facts = tracker.facts().unwrap();
        assert_eq!((facts.rtt_ns, facts.waiting_since), (Some(3 * SECOND), Some(2 * SECOND)));
        assert_eq!(facts.unanswered, 2);
    }

    #[test]
    fn pings_in_one_read_do_not_change_the_period() {
        let mut tracker = HeartbeatTracker::default();
        for at in [5, 10, 15, 20] {
            tracker.ping(at * SECOND);
        }
        for late in 1..=5 {
            tracker.ping(45 * SECOND + late * 1000);
        }
        let facts = tracker.facts().unwrap();
        assert_eq!(facts.period_ns, Some(5 * SECOND));
        assert!(facts.last_interval_ns.is_some_and(|gap| gap >= 25 * SECOND), "{facts:?}");
    }

    #[test]
    fn tolerated_missed_pings_are_counted() {
        let mut tracker = HeartbeatTracker::default();
        tracker.ping(SECOND);
        tracker.pong(SECOND + 1, 0);
        assert_eq!(tracker.facts().unwrap().survived, 0);
        for n in 2..=4 {
            tracker.ping(n * SECOND);
        }
        assert_eq!(tracker.facts().unwrap().survived, 0, "the outcome is still open");
        for _ in 0..3 {
            tracker.pong(5 * SECOND, 0);
        }
        assert_eq!(tracker.facts().unwrap().survived, 2);
    }

    #[test]
    fn a_ping_before_its_time_shows_a_pause_of_the_host() {
        // Intervals in milliseconds after the first ping, and what is missing.
        for (intervals, missing) in [
            (&[5_000, 5_000, 5_000, 5_000][..], None),
            // The host paused 2 s after a ping.
            (&[5_000, 5_000, 5_000, 2_000], Some(3_000)),
            (&[5_002, 4_990, 5_100, 2_000], Some(3_002)),
            // Further pings queued meanwhile, and the rhythm goes on.
            (&[5_000, 5_000, 5_000, 2_000, 0, 1], Some(12_999)),
            (&[5_000, 5_000, 5_000, 2_000, 0, 3_000, 5_000], Some(10_000)),
            // A delay on the way, and what queued behind it.
            (&[5_000, 5_000, 5_000, 8_000, 2_000], None),
            (&[5_000, 5_000, 5_000, 14_000, 0, 1], None),
            // Jitter of the browser, and an unstable rhythm.
            (&[5_000, 5_000, 5_000, 3_900], None),
            (&[5_000, 5_600, 4_400, 2_000], None),
            (&[5_000, 5_000, 2_000], None),
            // Too short a period to tell.
            (&[400, 400, 400, 100], None),
        ] {
            let mut tracker = HeartbeatTracker::new(HeartbeatSource::Text, Side::Down);
            let mut at = SECOND;
            tracker.ping(at);
            for interval in intervals {
                at += interval * 1_000_000;
                tracker.ping(at);
            }
            assert_eq!(tracker.early().map(|early| early.missing / 1_000_000), missing, "{intervals:?}");
            let is_steady = *intervals == [5_000; 4];
            assert_eq!(tracker.is_steady(at + 5 * SECOND), is_steady && missing.is_none(), "{intervals:?}");
            assert!(!tracker.is_steady(at + 7 * SECOND));
        }
        // serve's clock is that of this host.
        let mut tracker = HeartbeatTracker::new(HeartbeatSource::Ping, Side::Up);
        for at in [5, 10, 15, 20, 22] {
            tracker.ping(at * SECOND);
        }
        assert_eq!(tracker.early(), None);
    }

    #[test]
    fn the_period_needs_two_intervals_and_ignores_one_late_ping() {
        let mut tracker = HeartbeatTracker::default();
        let mut at = 0;
        for (n, wait) in [5, 5, 5, 60, 5, 5].into_iter().enumerate() {
            at += wait * SECOND;
            tracker.ping(at);
            assert_eq!(tracker.facts().unwrap().period_ns.is_some(), n >= 2);
        }
        assert_eq!(tracker.facts().unwrap().period_ns, Some(5 * SECOND));
    }

    #[test]
    fn loss_does_not_change_the_period() {
        let mut tracker = HeartbeatTracker::default();
        let (mut at, mut lost) = (0, 0);
        let mut ping = |tracker: &mut HeartbeatTracker, wait: u64, newly_lost: u32| {
            (at, lost) = (at + wait * SECOND, lost + newly_lost);
            tracker.ping(at);
            tracker.sample(at, 0, lost);
            tracker.facts().unwrap().period_ns
        };
        for _ in 0..4 {
            ping(&mut tracker, 5, 0);
        }
        for _ in 0..40 {
            assert_eq!(ping(&mut tracker, 21, 2), Some(5 * SECOND));
        }
        // The same applies to a ping that the loss delayed.
        assert_eq!(ping(&mut tracker, 21, 0), Some(5 * SECOND));
        // Without loss, a new rhythm of the client is learned.
        for _ in 0..10 {
            ping(&mut tracker, 60, 0);
        }
        assert_eq!(tracker.facts().unwrap().period_ns, Some(60 * SECOND));
    }

    #[test]
    fn a_session_that_starts_with_loss_learns_a_period() {
        let mut tracker = HeartbeatTracker::default();
        for n in 1..=5 {
            tracker.ping(n * 7 * SECOND);
            tracker.sample(n * 7 * SECOND, 0, u32::try_from(n).unwrap());
        }
        assert_eq!(tracker.facts().unwrap().period_ns, Some(7 * SECOND));
    }

    #[test]
    fn each_rtt_is_returned_once() {
        let mut tracker = HeartbeatTracker::default();
        assert!(tracker.take_rtts().is_empty());
        tracker.pong(SECOND, 0);
        assert!(tracker.take_rtts().is_empty(), "a pong without a ping has no RTT");
        tracker.ping(2 * SECOND);
        tracker.ping(3 * SECOND);
        tracker.pong(5 * SECOND, 0);
        tracker.pong(6 * SECOND, 0);
        assert_eq!(tracker.take_rtts(), [3 * SECOND, 3 * SECOND]);
        assert!(tracker.take_rtts().is_empty());
        for n in 0..30 {
            tracker.ping((10 + n) * SECOND);
            tracker.pong((11 + n) * SECOND, 0);
        }
        assert_eq!(tracker.take_rtts(), [SECOND; OUTSTANDING]);
    }

    #[test]
    fn unanswered_pings_beyond_the_list_are_counted() {
        let mut tracker = HeartbeatTracker::default();
        for n in 1..=20 {
            tracker.ping(n * SECOND);
        }
        for _ in 0..10 {
            tracker.pong(21 * SECOND, 0);
        }
        let facts = tracker.facts().unwrap();
        assert_eq!((facts.unanswered, facts.waiting_since), (10, Some(20 * SECOND)));
        tracker.pong(22 * SECOND, 0);
        for _ in 0..40 {
            tracker.pong(23 * SECOND, 0);
        }
        assert_eq!(tracker.facts().unwrap().waiting_since, None);
    }
}
