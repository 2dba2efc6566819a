//! A line of `journalctl -o json` as a record. Pure.

use std::collections::BTreeMap;

use t3_record::{CloseRecord, journal::CLOSE_ID, record::BadRecord};

/// The `ws close` in one line and when it was written (seconds since the epoch); `None` for any other entry.
///
/// # Errors
/// [`BadRecord`] for a `ws close` that lacks something.
pub fn close(line: &str) -> Result<Option<(CloseRecord, u64)>, BadRecord> {
    fields(line).map_or(Ok(None), |fields| of(&fields))
}

/// The same from the fields of an entry.
///
/// # Errors
/// As [`close`].
pub fn of(fields: &BTreeMap<String, String>) -> Result<Option<(CloseRecord, u64)>, BadRecord> {
    if fields.get("MESSAGE_ID").map(String::as_str) != Some(CLOSE_ID) {
        return Ok(None);
    }
    let micros: Option<u64> = fields.get("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse().ok());
    let record = CloseRecord::from_fields(fields)?;
    Ok(Some((record, micros.map_or_else(crate::clock::realtime_secs, |micros| micros / 1_000_000))))
}

/// The fields of one line as texts; `None` when it is no object.
pub fn fields(line: &str) -> Option<BTreeMap<String, String>> {
    let entry: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).ok()?;
    Some(entry.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect())
}

/// journalctl writes a value with unprintable bytes as an array of numbers, and one that was given twice as an array of texts.
fn text(value: serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Array(bytes) if bytes.iter().all(serde_json::Value::is_u64) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        serde_json::Value::Array(texts) => texts.first()?.as_str().map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, KernelSource, Segment, Verdict};

    use super::*;

    fn record() -> CloseRecord {
        let mut record = CloseRecord::new(
            "wizard".to_owned(),
            "192.0.2.7".to_owned(),
            4000,
            Cause::Graceful,
            Verdict::ClientClosed,
            Segment::Downstream,
            "c1".to_owned(),
            KernelSource::Off,
        );
        record.ws_reason = Some("so\nlong".to_owned());
        record
    }

    fn line(change: impl Fn(&mut BTreeMap<String, serde_json::Value>)) -> String {
        let mut entry: BTreeMap<String, serde_json::Value> =
            record().to_fields().into_iter().map(|(name, value)| (name.into_owned(), value.into())).collect();
        entry.insert("__REALTIME_TIMESTAMP".to_owned(), "1700000042123456".into());
        change(&mut entry);
        serde_json::to_string(&entry).unwrap()
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        assert_eq!(close(&line(|_| ())).unwrap(), Some((record(), 1_700_000_042)));
        let bytes = line(|entry| {
            entry.insert("T3_WS_REASON".to_owned(), b"so\nlong".to_vec().into());
        });
        assert_eq!(close(&bytes).unwrap(), Some((record(), 1_700_000_042)));
    }

    #[test]
    fn other_entries_are_passed_over_and_broken_ones_told() {
        assert_eq!(close("not json").unwrap(), None);
        assert_eq!(close("{\"MESSAGE\":\"ws close forged\"}").unwrap(), None);
        let broken = line(|entry| {
            entry.remove("T3_CONN");
        });
        assert_eq!(close(&broken), Err(BadRecord::Missing("conn")));
    }
}
