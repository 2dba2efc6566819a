//! Reconciled records of a range, in the order of their closes. Pure.
//!
//! Their entries are later than the closes, so they are read first, without an end of the range,
//! and then put between the others.

use std::collections::VecDeque;

use t3_record::CloseRecord;

use super::{args::ClosesArgs, filter};
use crate::time::closed::closed_micros;

/// The time of the close, in microseconds since the epoch, if the record is a reconciled one that
/// matches all options.
pub fn closed_at(args: &ClosesArgs, record: &CloseRecord, written: u64) -> Option<u64> {
    let at = closed_micros(record, written);
    let since = args.since.is_none_or(|since| since.epoch_micros() <= at);
    let until = args.until().is_none_or(|until| at <= until.epoch_micros());
    (record.reconciled.is_some() && since && until && filter::wanted(args, record)).then_some(at)
}

/// A record to be listed.
#[derive(Debug)]
pub struct Due {
    /// Time of the close in microseconds since the epoch.
    pub at: u64,
    pub record: Box<CloseRecord>,
    pub host: Option<String>,
}

/// Records to be listed, earliest close first.
#[derive(Debug, Default)]
pub struct Reconciled(VecDeque<Due>);

impl Reconciled {
    /// Keeps a record with the time of its close.
    pub fn keep(&mut self, at: u64, record: Box<CloseRecord>, host: Option<&str>) {
        self.0.push_back(Due { at, record, host: host.map(str::to_owned) });
    }

    /// Sorts the records after the last one.
    pub fn sort(&mut self) {
        self.0.make_contiguous().sort_by_key(|due| due.at);
    }

    /// Removes and returns the next record up to a time in microseconds since the epoch.
    pub fn next(&mut self, up_to: u64) -> Option<Due> {
        self.0.front().is_some_and(|due| due.at <= up_to).then(|| self.0.pop_front()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use t3_record::{Segment, Verdict, vocabulary::Reconciled as Origin};

    use super::{super::tests::record, *};
    use crate::time::Moment;

    #[test]
    fn records_are_selected_and_sorted_by_the_time_of_the_close() {
        let at = |secs| Some(Moment { secs, micros: 0, span: 1, upcoming: None });
        let args = ClosesArgs { since: at(100), until: at(200), ..ClosesArgs::default() };
        let mut kept = Reconciled::default();
        for (conn, second, origin) in [
            ("late", 201, Some(Origin::Journal)),
            ("second", 200, Some(Origin::Spool)),
            ("first", 100, Some(Origin::Journal)),
            ("early", 99, Some(Origin::Journal)),
            ("ordinary", 150, None),
        ] {
            let mut record = record("alice", Verdict::DispatchDied, Segment::Dispatch, 5000);
            record.conn = conn.to_owned();
            record.reconciled = origin;
            record.ended_at = crate::time::rfc3339(second * 1_000_000);
            if let Some(at) = closed_at(&args, &record, 900_000_000) {
                kept.keep(at, Box::new(record), None);
            }
        }
        kept.sort();
        let mut next = |up_to: u64| kept.next(up_to * 1_000_000).map(|due| (due.at, due.record.conn));
        assert_eq!(next(99), None);
        assert_eq!(next(150), Some((100_000_000, "first".to_owned())));
        assert_eq!(next(150), None);
        assert_eq!(next(u64::MAX / 1_000_000), Some((200_000_000, "second".to_owned())));
        assert_eq!(next(u64::MAX / 1_000_000), None);
    }
}
