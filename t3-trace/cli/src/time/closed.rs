//! Time of a close. Pure.

use t3_record::CloseRecord;

/// Returns the time of the close in microseconds since the epoch: that of its entry, but for a
/// reconciled record, which is written later, that of the end in the record.
#[must_use]
pub fn closed_micros(record: &CloseRecord, written: u64) -> u64 {
    let ended = record.ended_at.as_ref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    // Never later than its entry, whatever the clock was.
    ended.and_then(|at| u64::try_from(at.as_microsecond()).ok()).map_or(written, |at| at.min(written))
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, KernelSource, Segment, Verdict};

    use super::*;

    #[test]
    fn a_reconciled_record_has_its_own_time() {
        let mut record = CloseRecord::new(
            "alice".to_owned(),
            "192.0.2.7".to_owned(),
            5000,
            Cause::DispatchClosed,
            Verdict::DispatchDied,
            Segment::Dispatch,
            "c1".to_owned(),
            KernelSource::Off,
        );
        assert_eq!(closed_micros(&record, 7), 7);
        for (ended_at, expected) in [
            ("2026-03-01T02:13:45.120Z", 1_772_331_225_120_000),
            ("2027-03-01T02:13:45.120Z", 1_772_400_000_000_000),
            ("1960-03-01T02:13:45Z", 1_772_400_000_000_000),
            ("soon", 1_772_400_000_000_000),
        ] {
            record.ended_at = Some(ended_at.to_owned());
            assert_eq!(closed_micros(&record, 1_772_400_000_000_000), expected, "{ended_at}");
        }
    }
}
