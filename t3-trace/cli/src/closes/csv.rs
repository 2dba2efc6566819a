//! Records as comma-separated values (RFC 4180, with LF line ends). Pure.

use t3_record::CloseRecord;

use crate::time::rfc3339;

/// Returns the header line: `time` (RFC 3339, UTC), then each key of a record.
#[must_use]
pub fn heading() -> String {
    let keys: Vec<&str> = CloseRecord::KEYS.iter().map(|key| key.name).collect();
    format!("time,{}", keys.join(","))
}

/// Returns the row of a record written at this time in microseconds since the epoch; an absent key
/// has an empty field.
#[must_use]
pub fn row(record: &CloseRecord, micros: u64) -> String {
    let pairs = record.pairs();
    let mut known = pairs.iter().peekable();
    let mut row = rfc3339(micros).unwrap_or_default();
    for key in CloseRecord::KEYS {
        row.push(',');
        if let Some((_, value)) = known.next_if(|(name, _)| *name == key.name) {
            row.push_str(&quoted(value));
        }
    }
    row
}

/// Quotes a value (RFC 4180, section 2, rules 5 to 7).
fn quoted(value: &str) -> String {
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use t3_record::{Segment, Verdict};

    use super::{super::tests::record, *};

    #[test]
    fn values_match_their_columns_and_hostile_values_stay_in_their_field() {
        let mut record = record("alice", Verdict::ServeOom, Segment::Serve, 5000);
        record.ws_reason = Some("a,\"b\"\n".to_owned());
        let row = row(&record, 7);
        assert!(
            row.starts_with("1970-01-01T00:00:00.000007Z,alice,192.0.2.7,5000,upstream_closed,serve_oom,serve,c1,tracepoint,"),
            "{row}"
        );
        assert!(row.contains(",\"a,\"\"b\"\"\n\","), "{row}");
        assert_eq!(row.matches(',').count(), heading().matches(',').count() + 1);
    }
}
