//! Selection of a close among those in the journal. Pure.

use t3_record::CloseRecord;

use crate::{
    present::verdict_text::{Tone, tone},
    time::Moment,
};

/// Selection by the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Session ID.
    Conn(String),
    /// The user's close nearest to a time.
    Nearby { user: String, at: Moment },
    /// The last close, of any user or of one.
    Last { user: Option<String> },
}

/// Longest distance of a close from the given time, in seconds: users round and misremember times.
pub const NEAR: u64 = 30 * 60;

/// Limit of other closes listed.
const LISTED: usize = 5;

/// A record and its times in milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Close {
    pub record: CloseRecord,
    /// Write time; in a reconciled record, the time of the end.
    pub at_ms: i64,
    /// Write time.
    pub written_ms: i64,
    /// Host of the entry.
    pub host: Option<String>,
}

/// The selected close, and other candidates, the nearest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    pub close: Close,
    pub near: Vec<Close>,
}

/// Selects a close. By time it is the nearest; of several within the given minute, the first
/// unexpected one.
#[must_use]
pub fn choose(selector: &Selector, closes: Vec<Close>) -> Option<Choice> {
    let mut fitting: Vec<Close> = closes.into_iter().filter(|close| fits(selector, close)).collect();
    if let Selector::Nearby { at, .. } = selector {
        let fine = |close: &Close| tone(close.record.verdict, close.record.segment) == Tone::Fine;
        fitting.sort_by_key(|close| (distance_ms(*at, close.at_ms), fine(close), close.at_ms));
    } else {
        // One session has one record; if there are more, the last has the most evidence.
        fitting.sort_by_key(|close| std::cmp::Reverse(close.at_ms));
        fitting.truncate(1);
    }
    let mut fitting = fitting.into_iter();
    Some(Choice { close: fitting.next()?, near: fitting.take(LISTED).collect() })
}

fn fits(selector: &Selector, close: &Close) -> bool {
    match selector {
        Selector::Conn(conn) => close.record.conn == *conn,
        Selector::Nearby { user, at } => {
            close.record.user == *user && distance_ms(*at, close.at_ms) <= NEAR * 1000
        }
        Selector::Last { user } => user.as_ref().is_none_or(|user| close.record.user == *user),
    }
}

/// Returns the distance from the given time; 0 within it (`14:10` is one minute wide).
fn distance_ms(given: Moment, at_ms: i64) -> u64 {
    let from = i64::try_from(given.epoch_micros() / 1000).unwrap_or(i64::MAX);
    let last = from.saturating_add(i64::try_from(given.span).unwrap_or(i64::MAX).saturating_mul(1000) - 1);
    if at_ms < from { at_ms.abs_diff(from) } else { at_ms.max(last).abs_diff(last) }
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, KernelSource, Segment, Verdict};

    use super::*;

    fn close(conn: &str, user: &str, verdict: Verdict, at_secs: i64) -> Close {
        let record = CloseRecord::new(
            user.to_owned(),
            "192.0.2.7".to_owned(),
            5000,
            Cause::Graceful,
            verdict,
            Segment::Downstream,
            conn.to_owned(),
            KernelSource::Tracepoint,
        );
        Close { record, at_ms: at_secs * 1000, written_ms: at_secs * 1000, host: None }
    }

    fn closes() -> Vec<Close> {
        vec![
            close("early", "ann", Verdict::ServeOom, 1000),
            close("fine", "ann", Verdict::ClientClosed, 6010),
            close("cut", "ann", Verdict::PathStalled, 6020),
            close("cut2", "ann", Verdict::ServeOom, 6059),
            close("after", "ann", Verdict::ServeOom, 6061),
            close("bobs", "bob", Verdict::ServeOom, 6020),
            close("late", "ann", Verdict::ClientLeft, 7000),
        ]
    }

    fn given(secs: u64, span: u64) -> Moment {
        Moment { secs, micros: 0, span, upcoming: None }
    }

    fn chosen(selector: &Selector) -> Option<(String, Vec<String>)> {
        let choice = choose(selector, closes())?;
        Some((choice.close.record.conn, choice.near.into_iter().map(|close| close.record.conn).collect()))
    }

    #[test]
    fn by_time_the_nearest_close_of_the_user_is_selected() {
        let near = |user: &str, at| Selector::Nearby { user: user.to_owned(), at };
        for (selector, expected) in [
            // Within the minute: the first unexpected close, before the expected one.
            (near("ann", given(6000, 60)), Some("cut: cut2 fine after late")),
            // A second: the nearest on either side.
            (near("ann", given(6057, 1)), Some("cut2: after cut fine late")),
            (near("ann", given(6990, 1)), Some("late: after cut2 cut fine")),
            (near("bob", given(6000, 60)), Some("bobs:")),
            // Half an hour is near enough, more is not.
            (near("ann", given(2800, 1)), Some("early:")),
            (near("ann", given(2801, 1)), None),
            (near("carol", given(6000, 60)), None),
        ] {
            let got = chosen(&selector).map(|(conn, near)| format!("{conn}: {}", near.join(" ")));
            assert_eq!(got.as_deref().map(str::trim_end), expected, "{selector:?}");
        }
    }

    #[test]
    fn a_close_is_selected_by_id_or_as_the_last() {
        let one = |selector: &Selector| chosen(selector).map(|(conn, near)| (conn, near.len()));
        let some = |conn: &str| Some((conn.to_owned(), 0));
        assert_eq!(one(&Selector::Conn("cut2".to_owned())), some("cut2"));
        assert_eq!(one(&Selector::Conn("nobody".to_owned())), None);
        assert_eq!(one(&Selector::Last { user: None }), some("late"));
        assert_eq!(one(&Selector::Last { user: Some("bob".to_owned()) }), some("bobs"));
        assert_eq!(one(&Selector::Last { user: Some("carol".to_owned()) }), None);
    }
}
