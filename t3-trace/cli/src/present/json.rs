//! A record as one line of JSON: `time` (RFC 3339, UTC), then the keys of the record. Pure.

use serde::{Serialize, Serializer};
use t3_record::CloseRecord;

use crate::{present::text::safe_json, time::rfc3339};

struct Timed<'a>(&'a CloseRecord, u64);

impl Serialize for Timed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = rfc3339(self.1).map(|time| ("time", time));
        serializer.collect_map(time.into_iter().chain(self.0.pairs()))
    }
}

/// Returns the line of a record written at this time in microseconds since the epoch.
///
/// # Errors
/// None in practice: the object has only texts.
pub fn line(record: &CloseRecord, micros: u64) -> serde_json::Result<String> {
    Ok(safe_json(&serde_json::to_string(&Timed(record, micros))?))
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, KernelSource, Segment, Verdict};

    use super::*;

    #[test]
    fn the_time_is_first_and_the_record_round_trips() {
        let record = CloseRecord::new(
            "alice".to_owned(),
            "192.0.2.7".to_owned(),
            5000,
            Cause::UpstreamClosed,
            Verdict::ServeOom,
            Segment::Serve,
            "c1".to_owned(),
            KernelSource::Tracepoint,
        );
        let line = line(&record, 1_700_000_042_000_001).unwrap();
        assert!(line.starts_with(r#"{"time":"2023-11-14T22:14:02.000001Z","user":"alice","#), "{line}");
        assert_eq!(serde_json::from_str::<CloseRecord>(&line).unwrap(), record);
        assert!(!super::line(&record, u64::MAX).unwrap().contains("time\""));
    }
}
