//! t3's application heartbeat on one session: which pings were answered, how fast, and how often
//! they come.
//!
//! Pure. The period differs between t3 versions, so it is learned: the median of the last
//! intervals, which one late ping does not move. Once it is known, intervals between which segments
//! were lost teach nothing: on a bad path they are the path's. A pong answers the oldest unanswered
//! ping, because serve answers in order.

use t3_record::evidence::{Heartbeat, Nanos, SocketSample};

use crate::relay::ack_tracker::Delivery;

const OUTSTANDING: usize = 8;
const INTERVALS: usize = 16;
/// No client pings faster, in nanoseconds.
const SHORTEST: u64 = 5_000_000;

/// Which half of a heartbeat a text message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// From the browser.
    Ping,
    /// serve's answer.
    Pong,
}

/// Recognises `{"_tag":"Ping"}` and `{"_tag":"Pong"}`, alone or as the only element of an array,
/// with any JSON whitespace.
#[must_use]
pub fn recognise(text: &[u8]) -> Option<Beat> {
    let inner = match eat(text, b"[") {
        Some(rest) => trim_end(rest).strip_suffix(b"]")?,
        None => text,
    };
    let rest = eat(inner, b"{")?;
    let rest = eat(rest, br#""_tag""#)?;
    let rest = eat(rest, b":")?;
    let (beat, rest) = match (eat(rest, br#""Ping""#), eat(rest, br#""Pong""#)) {
        (Some(rest), _) => (Beat::Ping, rest),
        (_, Some(rest)) => (Beat::Pong, rest),
        _ => return None,
    };
    trim_end(eat(rest, b"}")?).is_empty().then_some(beat)
}

fn eat<'a>(text: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    text.trim_ascii_start().strip_prefix(token)
}

fn trim_end(text: &[u8]) -> &[u8] {
    text.trim_ascii_end()
}

/// The meter of one session.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    seen: Heartbeat,
    /// When the oldest unanswered pings came; of more than fit only the number is known.
    waiting: [Nanos; OUTSTANDING],
    intervals: [u64; INTERVALS],
    interval_count: usize,
    /// The last interval, until a look at the socket has told whether it teaches anything.
    fresh: Option<u64>,
    /// A ping has come since the last look.
    unlooked: bool,
    /// Nothing had been lost at the look before.
    calm: bool,
    delivery: Delivery,
    /// Answer times that nobody has taken yet.
    answered: [u64; OUTSTANDING],
    answered_count: usize,
}

impl Meter {
    /// A ping passed from the browser.
    pub fn ping(&mut self, now: Nanos) {
        self.delivery.begin(now);
        self.unlooked = true;
        if let Some(last) = self.seen.last_ping_at {
            let interval = now.saturating_sub(last);
            // Pings that had queued up and are read in one go teach no period, and the silence
            // before them stays known.
            if interval >= SHORTEST {
                self.seen.last_interval_ns = Some(interval);
                // Nobody has looked since the one before.
                self.learn(true);
                self.fresh = Some(interval);
            }
        }
        self.seen.pings += 1;
        self.seen.last_ping_at = Some(now);
        if let Some(slot) = self.waiting.get_mut(self.seen.unanswered as usize) {
            *slot = now;
        }
        self.seen.unanswered = self.seen.unanswered.saturating_add(1);
        self.seen.waiting_since = Some(self.waiting[0]);
    }

    /// The browser's socket was looked at after a ping or at the end: so much of the stream towards
    /// the browser had been acknowledged, and so many segments been lost since its beginning.
    pub fn look(&mut self, now: Nanos, acknowledged: u64, lost: u32) {
        self.unlooked = false;
        let (waiting, period) = (self.seen.waiting_since, self.period());
        let calm = self.delivery.look(now, acknowledged, lost, waiting, period);
        // What was held up in a loss may come after it.
        self.learn(calm && self.calm);
        self.calm = calm;
    }

    /// A ping has come since the last look.
    #[must_use]
    pub fn unlooked(&self) -> bool {
        self.unlooked
    }

    /// The looks, oldest first.
    #[must_use]
    pub fn looks(&self) -> Vec<SocketSample> {
        self.delivery.looks()
    }

    fn learn(&mut self, calm: bool) {
        let Some(interval) = self.fresh.take() else { return };
        if calm || self.period().is_none() {
            self.intervals[self.interval_count % INTERVALS] = interval;
            self.interval_count += 1;
        }
    }

    /// A pong passed from serve, with which the stream towards the browser reaches up to `end`.
    pub fn pong(&mut self, now: Nanos, end: u64) {
        self.seen.pongs += 1;
        self.seen.last_pong_at = Some(now);
        if self.seen.unanswered == 0 {
            return;
        }
        // Each ping beyond the first was sent at a tick that found no answer, and the browser
        // stayed.
        self.seen.survived = self.seen.survived.max(self.seen.unanswered - 1);
        let rtt = now.saturating_sub(self.waiting[0]);
        self.delivery.answered(end, now, rtt);
        self.seen.rtt_ns = Some(rtt);
        if let Some(slot) = self.answered.get_mut(self.answered_count) {
            *slot = rtt;
            self.answered_count += 1;
        }
        self.seen.rtt_max_ns = Some(self.seen.rtt_max_ns.unwrap_or(0).max(rtt));
        self.waiting.rotate_left(1);
        // The time of a ping beyond the list is not known; the last ping's is the one that accuses
        // nobody wrongly.
        self.waiting[OUTSTANDING - 1] = self.seen.last_ping_at.unwrap_or(now);
        self.seen.unanswered -= 1;
        self.seen.waiting_since = (self.seen.unanswered > 0).then_some(self.waiting[0]);
    }

    /// The answer times in nanoseconds since this was last asked, at most as many as pings are
    /// listed.
    pub fn take_answered(&mut self) -> &[u64] {
        let count = std::mem::take(&mut self.answered_count);
        self.answered.get(..count).unwrap_or_default()
    }

    /// The answer time of the last answered ping, and since when the oldest unanswered one waits,
    /// in nanoseconds.
    #[must_use]
    pub fn latest(&self) -> (Option<u64>, Option<Nanos>) {
        (self.seen.rtt_ns, self.seen.waiting_since)
    }

    /// What was seen so far; `None` before the first ping: answers alone are no heartbeat.
    #[must_use]
    pub fn facts(&self) -> Option<Heartbeat> {
        (self.seen.pings > 0).then(|| Heartbeat { period_ns: self.period(), ..self.seen })
    }

    /// Median of the last intervals, from two on.
    fn period(&self) -> Option<u64> {
        let mut sorted = [0; INTERVALS + 1];
        sorted[..INTERVALS].copy_from_slice(&self.intervals);
        let mut known = self.interval_count.min(INTERVALS);
        if let Some(fresh) = self.fresh {
            sorted[known] = fresh;
            known += 1;
        }
        if known < 2 {
            return None;
        }
        let sorted = &mut sorted[..known];
        sorted.sort_unstable();
        sorted.get((known - 1) / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn beats_are_recognised_with_whitespace_and_nothing_else_is() {
        for (text, beat) in [
            (r#"{"_tag":"Ping"}"#, Some(Beat::Ping)),
            (r#"{"_tag":"Pong"}"#, Some(Beat::Pong)),
            (" {\n \"_tag\" : \"Pong\" }\n", Some(Beat::Pong)),
            (r#"[{"_tag":"Ping"}]"#, Some(Beat::Ping)),
            (r#"[{"_tag":"Ping"}"#, None),
            (r#"{"_tag":"Ping"} x"#, None),
            (r#"{"_tag":"Ping","id":1}"#, None),
            (r#"{"_tag":"Pingu"}"#, None),
            (r#"{"tag":"Ping"}"#, None),
            ("", None),
            ("[", None),
        ] {
            assert_eq!(recognise(text.as_bytes()), beat, "{text:?}");
        }
    }

    #[test]
    fn answered_pings_give_times_and_no_waiting() {
        let mut meter = Meter::default();
        assert_eq!(meter.facts(), None);
        for n in 1..=4 {
            meter.ping(n * 5 * SECOND);
            meter.pong(n * 5 * SECOND + n * 1000, 0);
        }
        let facts = meter.facts().unwrap();
        assert_eq!((facts.pings, facts.pongs, facts.unanswered), (4, 4, 0));
        assert_eq!((facts.rtt_ns, facts.rtt_max_ns), (Some(4000), Some(4000)));
        assert_eq!((facts.waiting_since, facts.period_ns), (None, Some(5 * SECOND)));
    }

    #[test]
    fn a_pong_answers_the_oldest_ping() {
        let mut meter = Meter::default();
        for n in 1..=3 {
            meter.ping(n * SECOND);
        }
        assert_eq!(meter.facts().unwrap().waiting_since, Some(SECOND));
        meter.pong(4 * SECOND, 0);
        let facts = meter.facts().unwrap();
        assert_eq!((facts.rtt_ns, facts.waiting_since), (Some(3 * SECOND), Some(2 * SECOND)));
        assert_eq!(facts.unanswered, 2);
    }

    #[test]
    fn pings_that_are_read_in_one_go_teach_no_period() {
        let mut meter = Meter::default();
        for at in [5, 10, 15, 20] {
            meter.ping(at * SECOND);
        }
        for late in 1..=5 {
            meter.ping(45 * SECOND + late * 1000);
        }
        let facts = meter.facts().unwrap();
        assert_eq!(facts.period_ns, Some(5 * SECOND));
        assert!(facts.last_interval_ns.is_some_and(|gap| gap >= 25 * SECOND), "{facts:?}");
    }

    #[test]
    fn missed_ticks_that_the_browser_put_up_with_are_remembered() {
        let mut meter = Meter::default();
        meter.ping(SECOND);
        meter.pong(SECOND + 1, 0);
        assert_eq!(meter.facts().unwrap().survived, 0);
        for n in 2..=4 {
            meter.ping(n * SECOND);
        }
        assert_eq!(meter.facts().unwrap().survived, 0, "nobody knows yet how it ends");
        for _ in 0..3 {
            meter.pong(5 * SECOND, 0);
        }
        assert_eq!(meter.facts().unwrap().survived, 2);
    }

    #[test]
    fn one_late_ping_does_not_move_the_period_and_one_interval_teaches_none() {
        let mut meter = Meter::default();
        let mut at = 0;
        for (n, wait) in [5, 5, 5, 60, 5, 5].into_iter().enumerate() {
            at += wait * SECOND;
            meter.ping(at);
            assert_eq!(meter.facts().unwrap().period_ns.is_some(), n >= 2);
        }
        assert_eq!(meter.facts().unwrap().period_ns, Some(5 * SECOND));
    }

    #[test]
    fn a_bad_path_does_not_unteach_the_period() {
        let mut meter = Meter::default();
        let (mut at, mut lost) = (0, 0);
        let mut beat = |meter: &mut Meter, wait: u64, fresh: u32| {
            (at, lost) = (at + wait * SECOND, lost + fresh);
            meter.ping(at);
            meter.look(at, 0, lost);
            meter.facts().unwrap().period_ns
        };
        for _ in 0..4 {
            beat(&mut meter, 5, 0);
        }
        for _ in 0..40 {
            assert_eq!(beat(&mut meter, 21, 2), Some(5 * SECOND));
        }
        // What the loss had held up, too.
        assert_eq!(beat(&mut meter, 21, 0), Some(5 * SECOND));
        // A browser that changes its rhythm over a whole path is believed.
        for _ in 0..10 {
            beat(&mut meter, 60, 0);
        }
        assert_eq!(meter.facts().unwrap().period_ns, Some(60 * SECOND));
    }

    #[test]
    fn a_session_that_begins_on_a_bad_path_has_a_period_all_the_same() {
        let mut meter = Meter::default();
        for n in 1..=5 {
            meter.ping(n * 7 * SECOND);
            meter.look(n * 7 * SECOND, 0, u32::try_from(n).unwrap());
        }
        assert_eq!(meter.facts().unwrap().period_ns, Some(7 * SECOND));
    }

    #[test]
    fn each_answer_time_is_given_out_once() {
        let mut meter = Meter::default();
        assert!(meter.take_answered().is_empty());
        meter.pong(SECOND, 0);
        assert!(meter.take_answered().is_empty(), "no ping, no answer");
        meter.ping(2 * SECOND);
        meter.ping(3 * SECOND);
        meter.pong(5 * SECOND, 0);
        meter.pong(6 * SECOND, 0);
        assert_eq!(meter.take_answered(), [3 * SECOND, 3 * SECOND]);
        assert!(meter.take_answered().is_empty());
        for n in 0..30 {
            meter.ping((10 + n) * SECOND);
            meter.pong((11 + n) * SECOND, 0);
        }
        assert_eq!(meter.take_answered(), [SECOND; OUTSTANDING]);
    }

    #[test]
    fn more_unanswered_pings_than_are_listed_are_still_counted() {
        let mut meter = Meter::default();
        for n in 1..=20 {
            meter.ping(n * SECOND);
        }
        for _ in 0..10 {
            meter.pong(21 * SECOND, 0);
        }
        let facts = meter.facts().unwrap();
        assert_eq!((facts.unanswered, facts.waiting_since), (10, Some(20 * SECOND)));
        meter.pong(22 * SECOND, 0);
        for _ in 0..40 {
            meter.pong(23 * SECOND, 0);
        }
        assert_eq!(meter.facts().unwrap().waiting_since, None);
    }
}
