//! Pattern over the sessions of one client: its watchdog closes one healthy session after the other
//! (facts of the t3 client, "False alarm"; docs/RUNBOOK.md). Pure.
//!
//! One such close is a coincidence of timers. Several in a row are one client that needs an update,
//! and neither serve nor the path is their cause.

use t3_record::{CloseRecord, How};

use super::facts::Timed;
use crate::present::{
    text::{lasted, safe},
    units,
};

/// Fewest closes in a row that are a pattern.
const FEWEST: usize = 3;
/// Longest time from one such close to the next, in milliseconds: a session of up to 15 s, and a
/// retry delay of up to 16 s, twice.
const LONGEST_CYCLE: i64 = 62_000;

/// Closes in a row by the watchdog of one client.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FalseAlarms {
    /// Closes by the watchdog.
    pub closes: u64,
    /// Closes of this user from this address in the same time, these included.
    pub sessions: u64,
    /// First of these closes, in milliseconds since the epoch.
    pub from_ms: i64,
    /// Last of these closes, in milliseconds since the epoch.
    pub until_ms: i64,
    /// Median time from one of these closes to the next, in milliseconds.
    pub cycle_ms: u64,
}

/// Finds the closes in a row that include the given close, else the latest before or after it.
///
/// `others` has closes of other sessions, of any user and in any order.
#[must_use]
pub fn false_alarms(record: &CloseRecord, at_ms: i64, others: &[Timed<CloseRecord>]) -> Option<FalseAlarms> {
    let of_client = |other: &&Timed<CloseRecord>| {
        other.what.user == record.user && other.what.ip == record.ip && other.what.conn != record.conn
    };
    let mut closes: Vec<(i64, bool)> =
        others.iter().filter(of_client).map(|other| (other.at_ms, is_alarm(&other.what))).collect();
    closes.push((at_ms, is_alarm(record)));
    let mut alarms: Vec<i64> =
        closes.iter().filter(|(_, is_alarm)| *is_alarm).map(|(at_ms, _)| *at_ms).collect();
    alarms.sort_unstable();
    let in_a_row = alarms.chunk_by(|one, next| next.saturating_sub(*one) <= LONGEST_CYCLE);
    let distance = |row: &&[i64]| row.iter().map(|at| at.abs_diff(at_ms)).min();
    let row = in_a_row.filter(|row| row.len() >= FEWEST).min_by_key(distance)?;
    let (from_ms, until_ms) = (*row.first()?, *row.last()?);
    let mut cycles: Vec<u64> =
        row.iter().zip(row.iter().skip(1)).map(|(one, next)| next.abs_diff(*one)).collect();
    cycles.sort_unstable();
    let sessions = closes.iter().filter(|(at_ms, _)| (from_ms..=until_ms).contains(at_ms)).count();
    Some(FalseAlarms {
        closes: row.len() as u64,
        sessions: sessions as u64,
        from_ms,
        until_ms,
        cycle_ms: cycles.get(cycles.len() / 2).copied().unwrap_or_default(),
    })
}

fn is_alarm(record: &CloseRecord) -> bool {
    record.how == Some(How::FalseAlarm)
}

impl FalseAlarms {
    /// Whether a close at this time belongs to the pattern.
    #[must_use]
    pub fn covers(&self, at_ms: i64) -> bool {
        (self.from_ms..=self.until_ms).contains(&at_ms)
    }

    /// The pattern in one sentence, and what follows from it.
    #[must_use]
    pub fn sentence(&self, record: &CloseRecord) -> String {
        let lasting = lasted(self.until_ms.abs_diff(self.from_ms));
        let begin = if is_alarm(record) {
            "A pattern, not one close"
        } else {
            "Also a pattern, and not the cause of this close"
        };
        format!(
            "{begin}: the client at {} closed {} of {} of {} within {lasting} by its own false alarm, one every {}. Each was \
             healthy. A client with effect 4.0.2 to 4.0.4 does this on a quiet serve, usually in a hidden tab; neither serve nor the path is the \
             cause.",
            safe(&record.ip),
            self.closes,
            units::count(self.sessions, "session"),
            safe(&record.user),
            lasted(self.cycle_ms),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        explain::{facts::ExplainInput, page::Page},
        present::text::Paint,
    };

    /// Start of the cycle in milliseconds since the epoch, and its length in a hidden tab.
    const START: i64 = 1_000_000;
    const CYCLE: i64 = 14_000;

    fn close(conn: &str, user: &str, ip: &str, how: &str) -> CloseRecord {
        let line = format!(
            "ws close user={user} ip={ip} dur_ms=11000 cause=graceful verdict=client_closed segment=downstream conn={conn} kernel=tracepoint how={how}"
        );
        CloseRecord::from_line(&line).unwrap()
    }

    fn at(n: i64, every: i64, what: CloseRecord) -> Timed<CloseRecord> {
        Timed { at_ms: START + n * every, what }
    }

    /// Closes of one client, one per cycle, without the first.
    fn others(count: i64, every: i64, how: &str) -> Vec<Timed<CloseRecord>> {
        (1..=count).map(|n| at(n, every, close(&format!("c{n}"), "ann", "192.0.2.7", how))).collect()
    }

    fn found(others: &[Timed<CloseRecord>]) -> Option<(u64, u64, u64)> {
        let ours = close("c0", "ann", "192.0.2.7", "false_alarm");
        false_alarms(&ours, START, others).map(|found| (found.closes, found.sessions, found.cycle_ms))
    }

    #[test]
    fn a_hidden_tab_that_cycles_is_a_pattern_with_its_period() {
        let mut cycling = others(9, CYCLE, "false_alarm");
        assert_eq!(found(&cycling), Some((10, 10, 14_000)));
        cycling.reverse();
        assert_eq!(found(&cycling), Some((10, 10, 14_000)), "in any order");
        // Another tab at the same address ends for other reasons; another user does not count.
        cycling.push(at(2, CYCLE, close("d1", "ann", "192.0.2.7", "ws_close:1001")));
        cycling.push(at(2, CYCLE, close("e1", "bob", "192.0.2.7", "false_alarm")));
        cycling.push(at(2, CYCLE, close("f1", "ann", "192.0.2.8", "false_alarm")));
        assert_eq!(found(&cycling), Some((10, 11, 14_000)));
        // The backoff of the client grows.
        assert_eq!(found(&others(2, 31_000, "false_alarm")), Some((3, 3, 31_000)));
    }

    #[test]
    fn single_closes_and_other_closes_are_not_a_pattern() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&others(1, CYCLE, "false_alarm")), None, "two are a coincidence");
        assert_eq!(found(&others(9, CYCLE, "ws_close:1000")), None, "closes for another reason");
        assert_eq!(found(&others(9, 600_000, "false_alarm")), None, "one now and then");
        let strangers: Vec<_> = (1..9)
            .map(|n| at(n, CYCLE, close(&format!("c{n}"), "ann", &format!("198.51.100.{n}"), "false_alarm")))
            .collect();
        assert_eq!(found(&strangers), None, "many clients");
        // The same record twice is one close.
        let twice = vec![at(0, 1, close("c0", "ann", "192.0.2.7", "false_alarm")); 5];
        assert_eq!(found(&twice), None);
    }

    #[test]
    fn a_close_for_another_reason_within_the_pattern_is_not_counted_as_one() {
        let ours = close("c0", "ann", "192.0.2.7", "ws_close:1001");
        let cycling = others(5, CYCLE, "false_alarm");
        let found = false_alarms(&ours, START + 2 * CYCLE + 1, &cycling).unwrap();
        assert_eq!((found.closes, found.sessions), (5, 6));
        assert!(found.covers(START + 2 * CYCLE) && !found.covers(START));
        // The nearest of two rows.
        let later =
            (100..104).map(|n| at(n, CYCLE, close(&format!("l{n}"), "ann", "192.0.2.7", "false_alarm")));
        let both: Vec<_> = cycling.into_iter().chain(later).collect();
        let near = |at_ms| false_alarms(&ours, at_ms, &both).unwrap().closes;
        assert_eq!((near(START), near(START + 102 * CYCLE)), (5, 4));
    }

    #[test]
    fn the_sentence_has_the_counts_the_period_and_no_control_characters() {
        let mut ours = close("c0", "ann", "192.0.2.7", "false_alarm");
        let found = false_alarms(&ours, START, &others(9, CYCLE, "false_alarm")).unwrap();
        let text = found.sentence(&ours);
        for part in ["not one close", "192.0.2.7", "10 of 10 sessions of ann", "within 2m06s", "every 14.0s"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        ours.how = None;
        assert!(found.sentence(&ours).starts_with("Also a pattern, and not the cause"));
        ours.user = "a\x1b[2Jb".to_owned();
        assert!(!found.sentence(&ours).contains('\x1b'));
    }

    #[test]
    fn the_page_names_the_pattern_and_not_a_single_close() {
        let page = |history| {
            let mut facts = ExplainInput::of(close("c0", "ann", "192.0.2.7", "false_alarm"), START);
            facts.history = history;
            Page::of(&facts, &[], |secs| format!("1970-01-01 {secs}"))
        };
        let text = |page: &Page| page.text(Paint { colour: false }, 80, |secs| format!("1970-01-01 {secs}"));
        let one = page(Vec::new());
        assert!(one.pattern.is_none() && !text(&one).contains("pattern"), "{}", text(&one));
        let cycling = page(others(9, CYCLE, "false_alarm"));
        let shown = text(&cycling);
        let (answer, _) = shown.split_once("\nCONFIDENCE").unwrap();
        assert!(answer.contains("  A pattern, not one close: the client at 192.0.2.7"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        let json = serde_json::to_value(&cycling).unwrap();
        assert_eq!((&json["pattern"]["closes"], &json["pattern"]["cycle_ms"]), (&10.into(), &14_000.into()));
    }
}
