//! Which close is meant, out of those that the journal has. Pure.

use t3_record::CloseRecord;

use crate::{
    present::verdict_text::{Tone, tone},
    time::Moment,
};

/// What the operator knows of the close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The session's id.
    Conn(String),
    /// Whose it was, and about when.
    Nearby {
        /// The user.
        user: String,
        /// About when.
        at: Moment,
    },
    /// That it was the last one, perhaps whose.
    Last {
        /// The user, if that is known.
        user: Option<String>,
    },
}

/// How far a close may lie from the time that was said, in seconds: people round, and remember
/// badly.
pub const NEAR: u64 = 30 * 60;

/// How many others are listed.
const LISTED: usize = 5;

/// A record and when it was written, in milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Close {
    /// The record.
    pub record: CloseRecord,
    /// When it was written.
    pub at_ms: i64,
}

/// The close that is meant, and those that could be meant as well, the nearest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The one.
    pub close: Close,
    /// The others.
    pub near: Vec<Close>,
}

/// Chooses. By time it is the nearest; of several within the time that was said, the first that cut
/// somebody off.
#[must_use]
pub fn choose(ask: &Selector, closes: Vec<Close>) -> Option<Choice> {
    let mut fitting: Vec<Close> = closes.into_iter().filter(|close| fits(ask, close)).collect();
    if let Selector::Nearby { at, .. } = ask {
        let fine = |close: &Close| tone(close.record.verdict, close.record.segment) == Tone::Fine;
        fitting.sort_by_key(|close| (distance_ms(*at, close.at_ms), fine(close), close.at_ms));
    } else {
        // One session has one record. Should there be more, the last one knew most.
        fitting.sort_by_key(|close| std::cmp::Reverse(close.at_ms));
        fitting.truncate(1);
    }
    let mut fitting = fitting.into_iter();
    Some(Choice { close: fitting.next()?, near: fitting.take(LISTED).collect() })
}

fn fits(ask: &Selector, close: &Close) -> bool {
    match ask {
        Selector::Conn(conn) => close.record.conn == *conn,
        Selector::Nearby { user, at } => {
            close.record.user == *user && distance_ms(*at, close.at_ms) <= NEAR * 1000
        }
        Selector::Last { user } => user.as_ref().is_none_or(|user| close.record.user == *user),
    }
}

/// How far a time lies from what was said: nothing within it, `14:10` being a whole minute.
fn distance_ms(said: Moment, at_ms: i64) -> u64 {
    let from = i64::try_from(said.epoch_micros() / 1000).unwrap_or(i64::MAX);
    let last = from.saturating_add(i64::try_from(said.span).unwrap_or(i64::MAX).saturating_mul(1000) - 1);
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
        Close { record, at_ms: at_secs * 1000 }
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

    fn said(secs: u64, span: u64) -> Moment {
        Moment { secs, micros: 0, span, daily: true }
    }

    fn chosen(ask: &Selector) -> Option<(String, Vec<String>)> {
        let choice = choose(ask, closes())?;
        Some((choice.close.record.conn, choice.near.into_iter().map(|close| close.record.conn).collect()))
    }

    #[test]
    fn by_time_it_is_the_nearest_of_that_user_and_the_others_are_listed() {
        let near = |user: &str, at| Selector::Nearby { user: user.to_owned(), at };
        for (ask, expected) in [
            // Within the minute: the first that cut somebody off, before the one that was fine.
            (near("ann", said(6000, 60)), Some("cut: cut2 fine after late")),
            // A second: the nearest on either side.
            (near("ann", said(6057, 1)), Some("cut2: after cut fine late")),
            (near("ann", said(6990, 1)), Some("late: after cut2 cut fine")),
            (near("bob", said(6000, 60)), Some("bobs:")),
            // Half an hour is near, more is not.
            (near("ann", said(2800, 1)), Some("early:")),
            (near("ann", said(2801, 1)), None),
            (near("carol", said(6000, 60)), None),
        ] {
            let got = chosen(&ask).map(|(conn, near)| format!("{conn}: {}", near.join(" ")));
            assert_eq!(got.as_deref().map(str::trim_end), expected, "{ask:?}");
        }
    }

    #[test]
    fn by_id_and_the_last_one() {
        let one = |ask: &Selector| chosen(ask).map(|(conn, near)| (conn, near.len()));
        let some = |conn: &str| Some((conn.to_owned(), 0));
        assert_eq!(one(&Selector::Conn("cut2".to_owned())), some("cut2"));
        assert_eq!(one(&Selector::Conn("nobody".to_owned())), None);
        assert_eq!(one(&Selector::Last { user: None }), some("late"));
        assert_eq!(one(&Selector::Last { user: Some("bob".to_owned()) }), some("bobs"));
        assert_eq!(one(&Selector::Last { user: Some("carol".to_owned()) }), None);
    }
}
