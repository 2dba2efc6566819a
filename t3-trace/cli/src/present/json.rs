//! A record as one line of JSON: `schema`, `time` (RFC 3339, UTC), the keys of the record with
//! numbers as numbers, then `host` if known. Pure.

use serde::{Serialize, Serializer, ser::SerializeMap};
use t3_record::{CloseRecord, TcpCloseRecord};

use crate::{present::text::safe_json, time::rfc3339};

/// Version of the form of a record as JSON and CSV. A new key does not change it; a key that is
/// removed or changes its kind does. Version 1 had all values as text, and no such field.
pub const SCHEMA: u32 = 2;

/// A record with keys.
trait Keys {
    fn serialize_keys<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;
}

impl Keys for CloseRecord {
    fn serialize_keys<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        self.serialize_into(map)
    }
}

impl Keys for TcpCloseRecord {
    fn serialize_keys<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        self.serialize_into(map)
    }
}

struct Timed<'a, R>(&'a R, Option<&'a str>, u64);

impl<R: Keys> Serialize for Timed<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("schema", &SCHEMA)?;
        if let Some(time) = rfc3339(self.2) {
            map.serialize_entry("time", &time)?;
        }
        self.0.serialize_keys(&mut map)?;
        if let Some(host) = self.1 {
            map.serialize_entry("host", host)?;
        }
        map.end()
    }
}

/// Returns the line of a record that this host wrote at this time in microseconds since the epoch.
///
/// # Errors
/// None in practice: the object has only texts and numbers.
pub fn line(record: &CloseRecord, host: Option<&str>, micros: u64) -> serde_json::Result<String> {
    Ok(safe_json(&serde_json::to_string(&Timed(record, host, micros))?))
}

/// As [`line()`], of a connection that t3-dispatch did not carry; `via` distinguishes them.
///
/// # Errors
/// As [`line()`].
pub fn direct_line(record: &TcpCloseRecord, host: Option<&str>, micros: u64) -> serde_json::Result<String> {
    Ok(safe_json(&serde_json::to_string(&Timed(record, host, micros))?))
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, KernelSource, Segment, Verdict, value::Percent};

    use super::*;

    #[test]
    fn the_time_is_first_and_the_record_round_trips() {
        let mut record = CloseRecord::new(
            "alice".to_owned(),
            "192.0.2.7".to_owned(),
            5000,
            Cause::UpstreamClosed,
            Verdict::ServeOom,
            Segment::Serve,
            "c1".to_owned(),
            KernelSource::Tracepoint,
        );
        record.psi_cpu = Some(Percent(3.2));
        record.ws_code = Some(1000);
        let with_host = line(&record, Some("devvm\u{1b}"), 7).unwrap();
        assert!(
            with_host.contains(r#","host":"devvm"#) && !with_host.contains(char::is_control),
            "{with_host}"
        );
        let line = line(&record, None, 1_700_000_042_000_001).unwrap();
        assert!(
            line.starts_with(r#"{"schema":2,"time":"2023-11-14T22:14:02.000001Z","user":"alice","#),
            "{line}"
        );
        for value in [r#""dur_ms":5000,"#, r#""ws_code":1000,"#, r#""psi_cpu":3.2"#, r#""conn":"c1","#] {
            assert!(line.contains(value), "{value} in {line}");
        }
        assert_eq!(serde_json::from_str::<CloseRecord>(&line).unwrap(), record);
        assert!(!super::line(&record, None, u64::MAX).unwrap().contains("time\""));
    }
}
