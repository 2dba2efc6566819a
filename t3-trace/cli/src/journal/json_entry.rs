//! Parser of records in `journalctl -o json`. Pure.

use std::collections::BTreeMap;

use t3_record::{
    CloseRecord, TcpCloseRecord,
    journal::{CLOSE_ID, TCP_CLOSE_ID},
    record::BadRecord,
};
use t3_trace_host::journal_trust::Trust;

use crate::time::closed::closed_micros;

/// An entry with the message ID of a `ws close` that cannot be shown.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unusable {
    #[error("cannot parse a record in the journal: {0}")]
    Broken(#[from] BadRecord),
    /// Any user can write such an entry; `uid` is that of its writer.
    #[error("ignored a close record not written by t3-dispatch (uid {uid})")]
    Foreign { uid: String },
}

/// Parses a line; returns the `ws close` and the time of the close in seconds since the epoch,
/// `None` for any other entry.
///
/// # Errors
/// [`Unusable`].
pub fn close(line: &str, trust: Trust) -> Result<Option<(CloseRecord, u64)>, Unusable> {
    fields(line).map_or(Ok(None), |fields| of(&fields, trust))
}

/// As [`close`], from the fields of an entry.
///
/// # Errors
/// As [`close`].
pub fn of(fields: &BTreeMap<String, String>, trust: Trust) -> Result<Option<(CloseRecord, u64)>, Unusable> {
    if fields.get("MESSAGE_ID").map(String::as_str) != Some(CLOSE_ID) {
        return Ok(None);
    }
    if !trust.allows(fields) {
        let uid = fields.get("_UID").map_or("unknown", String::as_str);
        return Err(Unusable::Foreign { uid: crate::present::text::safe(uid) });
    }
    let micros: Option<u64> = fields.get("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse().ok());
    let record = CloseRecord::from_fields(fields)?;
    let written = micros.unwrap_or_else(|| t3_trace_host::clock::realtime_secs().saturating_mul(1_000_000));
    let at = closed_micros(&record, written) / 1_000_000;
    Ok(Some((record, at)))
}

/// As [`of`], of a connection that t3-dispatch did not carry.
///
/// # Errors
/// As [`close`].
pub fn direct_of(
    fields: &BTreeMap<String, String>,
    trust: Trust,
) -> Result<Option<(TcpCloseRecord, u64)>, Unusable> {
    if fields.get("MESSAGE_ID").map(String::as_str) != Some(TCP_CLOSE_ID) {
        return Ok(None);
    }
    if !trust.allows(fields) {
        let uid = fields.get("_UID").map_or("unknown", String::as_str);
        return Err(Unusable::Foreign { uid: crate::present::text::safe(uid) });
    }
    let micros: Option<u64> = fields.get("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse().ok());
    let at = micros.map_or_else(t3_trace_host::clock::realtime_secs, |micros| micros / 1_000_000);
    Ok(Some((TcpCloseRecord::from_fields(fields)?, at)))
}

/// Returns the fields of a line as texts; `None` if it is not an object.
pub fn fields(line: &str) -> Option<BTreeMap<String, String>> {
    let entry: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).ok()?;
    Some(entry.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect())
}

/// journalctl writes a value with unprintable bytes as an array of numbers, and a repeated field as
/// an array of texts.
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

    const TRUST: Trust = Trust { dispatch: Some(991) };

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
        entry.insert("_UID".to_owned(), "0".into());
        change(&mut entry);
        serde_json::to_string(&entry).unwrap()
    }

    #[test]
    fn a_record_is_read_back() {
        assert_eq!(close(&line(|_| ()), TRUST).unwrap(), Some((record(), 1_700_000_042)));
        let bytes = line(|entry| {
            entry.insert("T3_WS_REASON".to_owned(), b"so\nlong".to_vec().into());
        });
        assert_eq!(close(&bytes, TRUST).unwrap(), Some((record(), 1_700_000_042)));
    }

    #[test]
    fn other_entries_are_skipped_and_broken_records_are_errors() {
        assert_eq!(close("not json", TRUST).unwrap(), None);
        assert_eq!(close("{\"MESSAGE\":\"ws close forged\"}", TRUST).unwrap(), None);
        let broken = line(|entry| {
            entry.remove("T3_CONN");
        });
        assert_eq!(close(&broken, TRUST), Err(BadRecord::Missing("conn").into()));
    }

    #[test]
    fn a_direct_close_is_never_a_ws_close() {
        let text = "tcp close ip=192.0.2.7 dur_ms=1 cause=upstream_closed verdict=serve_left segment=serve \
                    conn=d1 port=80 via=direct kernel=off";
        let record = TcpCloseRecord::from_line(text).unwrap();
        let entry = |uid: &str| {
            let own = record.to_fields().into_iter().map(|(name, value)| (name.into_owned(), value));
            let trusted = [("_UID", uid), ("__REALTIME_TIMESTAMP", "1700000042123456")];
            own.chain(trusted.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
        };
        let fields: BTreeMap<String, String> = entry("0");
        assert_eq!(of(&fields, TRUST), Ok(None));
        assert_eq!(direct_of(&fields, TRUST), Ok(Some((record.clone(), 1_700_000_042))));
        assert_eq!(direct_of(&entry("1000"), TRUST), Err(Unusable::Foreign { uid: "1000".to_owned() }));
        let session = super::fields(&line(|_| ())).unwrap();
        assert_eq!(direct_of(&session, TRUST), Ok(None));
    }

    #[test]
    fn a_close_of_another_writer_is_an_error() {
        let by = |uid: Option<&'static str>, unit: &'static str| {
            line(move |entry| {
                entry.remove("_UID");
                entry.extend(uid.map(|uid| ("_UID".to_owned(), uid.into())));
                entry.insert("_SYSTEMD_UNIT".to_owned(), unit.into());
            })
        };
        for (uid, unit) in [(Some("991"), "x.scope"), (Some("7"), "t3-dispatch.service")] {
            assert!(close(&by(uid, unit), TRUST).unwrap().is_some(), "{uid:?} {unit}");
        }
        for (uid, shown) in [(Some("1000"), "1000"), (None, "unknown"), (Some("1\u{1b}[2J"), "1\u{fffd}[2J")]
        {
            let foreign = Unusable::Foreign { uid: shown.to_owned() };
            assert_eq!(close(&by(uid, "user@1000.service"), TRUST), Err(foreign));
        }
    }
}
