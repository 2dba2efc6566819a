//! t3's application heartbeat on one session: which pings were answered, how fast, and how often they come.
//!
//! Pure. The period differs between t3 versions, so it is learned: the median of the last intervals, which one late ping does not
//! move. A pong answers the oldest unanswered ping, because serve answers in order.

use t3_record::evidence::{Heartbeat, Nanos};

const OUTSTANDING: usize = 8;
const INTERVALS: usize = 16;
/// How many of the last intervals are looked through for a silence.
const RECENT: usize = 5;
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

/// Recognises `{"_tag":"Ping"}` and `{"_tag":"Pong"}`, alone or as the only element of an array, with any JSON whitespace.
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
}

impl Meter {
    /// A ping passed from the browser.
    pub fn ping(&mut self, now: Nanos) {
        if let Some(last) = self.seen.last_ping_at {
            let interval = now.saturating_sub(last);
            // Pings that had queued up and are read in one go teach no period, and the silence before them stays known.
            if interval >= SHORTEST {
                self.seen.last_interval_ns = Some(interval);
                self.intervals[self.interval_count % INTERVALS] = interval;
                self.interval_count += 1;
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

    /// A pong passed from serve.
    pub fn pong(&mut self, now: Nanos) {
        self.seen.pongs += 1;
        self.seen.last_pong_at = Some(now);
        if self.seen.unanswered == 0 {
            return;
        }
        // Each ping beyond the first was sent at a tick that found no answer, and the browser stayed.
        self.seen.survived = self.seen.survived.max(self.seen.unanswered - 1);
        let rtt = now.saturating_sub(self.waiting[0]);
        self.seen.rtt_ns = Some(rtt);
        self.seen.rtt_max_ns = Some(self.seen.rtt_max_ns.unwrap_or(0).max(rtt));
        self.waiting.rotate_left(1);
        // The time of a ping beyond the list is not known; the last ping's is the one that accuses nobody wrongly.
        self.waiting[OUTSTANDING - 1] = self.seen.last_ping_at.unwrap_or(now);
        self.seen.unanswered -= 1;
        self.seen.waiting_since = (self.seen.unanswered > 0).then_some(self.waiting[0]);
    }

    /// What was seen so far; `None` before the first ping: answers alone are no heartbeat.
    #[must_use]
    pub fn facts(&self) -> Option<Heartbeat> {
        (self.seen.pings > 0).then(|| Heartbeat {
            period_ns: self.period(),
            recent_gap_ns: self.recent_gap(),
            ..self.seen
        })
    }

    fn recent_gap(&self) -> Option<u64> {
        let first = self.interval_count.saturating_sub(RECENT.min(INTERVALS));
        (first..self.interval_count).map(|n| self.intervals[n % INTERVALS]).max()
    }

    /// Median of the last intervals, from two on.
    fn period(&self) -> Option<u64> {
        let known = self.interval_count.min(INTERVALS);
        if known < 2 {
            return None;
        }
        let mut sorted = self.intervals;
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
            meter.pong(n * 5 * SECOND + n * 1000);
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
        meter.pong(4 * SECOND);
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
        meter.pong(SECOND + 1);
        assert_eq!(meter.facts().unwrap().survived, 0);
        for n in 2..=4 {
            meter.ping(n * SECOND);
        }
        assert_eq!(meter.facts().unwrap().survived, 0, "nobody knows yet how it ends");
        for _ in 0..3 {
            meter.pong(5 * SECOND);
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
    fn more_unanswered_pings_than_are_listed_are_still_counted() {
        let mut meter = Meter::default();
        for n in 1..=20 {
            meter.ping(n * SECOND);
        }
        for _ in 0..10 {
            meter.pong(21 * SECOND);
        }
        let facts = meter.facts().unwrap();
        assert_eq!((facts.unanswered, facts.waiting_since), (10, Some(20 * SECOND)));
        meter.pong(22 * SECOND);
        for _ in 0..40 {
            meter.pong(23 * SECOND);
        }
        assert_eq!(meter.facts().unwrap().waiting_since, None);
    }
}
