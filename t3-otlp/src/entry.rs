//! A `ws close` in `journalctl --output=json`. Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use t3_record::{CloseRecord, journal::CLOSE_ID, record::BadRecord};

/// Nanoseconds per microsecond.
const MICRO: u64 = 1_000;

/// A record, and the journal's fields of its entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The record.
    pub record: CloseRecord,
    /// `MESSAGE`: the record as a line.
    pub line: String,
    /// Time of the close in nanoseconds since the epoch: that of the entry, or for a record that
    /// was written later (`ended_at`) that of the end.
    pub closed: u64,
    /// Time of the entry in nanoseconds since the epoch.
    pub written: u64,
    /// `_HOSTNAME`.
    pub host: Option<String>,
    /// `_MACHINE_ID`.
    pub machine: Option<String>,
    /// `__CURSOR`: position in the journal.
    pub cursor: Option<String>,
}

/// An entry that cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Not an object of JSON.
    #[error("expected a line of journalctl --output=json: {0}")]
    Json(#[from] serde_json::Error),
    /// The entry has no time.
    #[error("the entry has no __REALTIME_TIMESTAMP")]
    Time,
    /// The record has a missing key or a bad value.
    #[error("cannot parse the record: {0}")]
    Record(#[from] BadRecord),
}

/// Parses a line; `None` for entries that are not a `ws close`.
///
/// # Errors
/// [`EntryError`].
pub fn parse(line: &str) -> Result<Option<Entry>, EntryError> {
    let fields: BTreeMap<String, Value> = serde_json::from_str(line)?;
    let mut fields: BTreeMap<String, String> =
        fields.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect();
    if fields.get("MESSAGE_ID").map(String::as_str) != Some(CLOSE_ID) {
        return Ok(None);
    }
    let micros = fields.get("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse::<u64>().ok());
    let written = micros.ok_or(EntryError::Time)?.saturating_mul(MICRO);
    let record = CloseRecord::from_fields(&fields)?;
    let ended = record.ended_at.as_ref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let ended = ended.and_then(|at| u64::try_from(at.as_nanosecond()).ok());
    // Never later than its entry, whatever the clock was.
    let closed = ended.map_or(written, |at| at.min(written));
    let line = fields.remove("MESSAGE").unwrap_or_else(|| record.to_line());
    let mut field = |name: &str| fields.remove(name).filter(|value| !value.is_empty());
    let (host, machine, cursor) = (field("_HOSTNAME"), field("_MACHINE_ID"), field("__CURSOR"));
    Ok(Some(Entry { record, line, closed, written, host, machine, cursor }))
}

/// Position of any entry in the journal; `None` without one.
#[must_use]
pub fn cursor(line: &str) -> Option<String> {
    let value: Value = serde_json::from_str(line).ok()?;
    value["__CURSOR"].as_str().map(str::to_owned)
}

/// journalctl writes a value with unprintable bytes as an array of numbers, and a repeated field as
/// an array of texts.
fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(bytes) if bytes.iter().all(Value::is_u64) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        Value::Array(texts) => texts.first()?.as_str().map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LINE: &str = "ws close user=alice ip=203.0.113.7 dur_ms=5 cause=graceful verdict=client_closed \
                        segment=downstream conn=c1 kernel=off ray=r";

    fn line(change: &[(&str, Value)]) -> String {
        let record = CloseRecord::from_line(LINE).unwrap();
        let mut fields: BTreeMap<String, Value> =
            record.to_fields().into_iter().map(|(name, value)| (name.into_owned(), json!(value))).collect();
        fields.insert("__REALTIME_TIMESTAMP".to_owned(), json!("1772331225120000"));
        for (name, value) in change {
            fields.insert((*name).to_owned(), value.clone());
        }
        serde_json::to_string(&fields).unwrap()
    }

    #[test]
    fn a_record_is_read_with_its_place_and_time() {
        let text =
            line(&[("_HOSTNAME", json!("h")), ("_MACHINE_ID", json!("m")), ("__CURSOR", json!("s=1"))]);
        let entry = parse(&text).unwrap().unwrap();
        assert_eq!(entry.record.user, "alice");
        assert_eq!((entry.closed, entry.written), (1_772_331_225_120_000_000, 1_772_331_225_120_000_000));
        assert_eq!((entry.host.as_deref(), entry.machine.as_deref()), (Some("h"), Some("m")));
        assert_eq!(entry.cursor.as_deref(), Some("s=1"));
        assert_eq!(entry.line, LINE);
        assert_eq!(cursor(&text).as_deref(), Some("s=1"));
    }

    #[test]
    fn a_record_that_was_written_later_has_the_time_of_its_end() {
        let ended = |at: &str| parse(&line(&[("T3_ENDED_AT", json!(at))])).unwrap().unwrap().closed;
        assert_eq!(ended("2026-03-01T02:13:44Z"), 1_772_331_224_000_000_000);
        assert_eq!(ended("2027-03-01T02:13:44Z"), 1_772_331_225_120_000_000);
        assert_eq!(ended("soon"), 1_772_331_225_120_000_000);
    }

    #[test]
    fn other_entries_are_skipped_and_broken_ones_are_errors() {
        assert_eq!(parse("{\"MESSAGE\":\"x\"}").unwrap(), None);
        assert!(matches!(parse("no"), Err(EntryError::Json(_))));
        assert!(matches!(parse(&line(&[("__REALTIME_TIMESTAMP", json!("x"))])), Err(EntryError::Time)));
        assert!(matches!(parse(&line(&[("T3_DUR_MS", json!("x"))])), Err(EntryError::Record(_))));
    }
}
