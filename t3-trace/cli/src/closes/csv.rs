//! Records as comma-separated values (RFC 4180, with LF line ends). Pure.
//!
//! Values come from clients: a control or invisible character is replaced, and a value that a
//! spreadsheet would take for a formula begins with an apostrophe.

use t3_record::{CloseRecord, TcpCloseRecord, record::Key};

use crate::{
    present::{json::SCHEMA, text::safe},
    time::rfc3339,
};

/// Returns the header line: `schema`, `time` (RFC 3339, UTC), each key of a record, then `host`.
#[must_use]
pub fn heading() -> String {
    heading_of(CloseRecord::KEYS)
}

/// As [`heading`], of connections that t3-dispatch did not carry.
#[must_use]
pub fn direct_heading() -> String {
    heading_of(TcpCloseRecord::KEYS)
}

fn heading_of(keys: &[Key]) -> String {
    let keys: Vec<&str> = keys.iter().map(|key| key.name).collect();
    format!("schema,time,{},host", keys.join(","))
}

/// Returns the row of a record that this host wrote at this time in microseconds since the epoch;
/// an absent key has an empty field.
#[must_use]
pub fn row(record: &CloseRecord, host: Option<&str>, micros: u64) -> String {
    row_of(CloseRecord::KEYS, &record.pairs(), host, micros)
}

/// As [`row`], of a connection that t3-dispatch did not carry.
#[must_use]
pub fn direct_row(record: &TcpCloseRecord, host: Option<&str>, micros: u64) -> String {
    row_of(TcpCloseRecord::KEYS, &record.pairs(), host, micros)
}

fn row_of(keys: &[Key], pairs: &[(&'static str, String)], host: Option<&str>, micros: u64) -> String {
    let mut known = pairs.iter().peekable();
    let mut row = format!("{SCHEMA},{}", rfc3339(micros).unwrap_or_default());
    for key in keys {
        row.push(',');
        if let Some((_, value)) = known.next_if(|(name, _)| *name == key.name) {
            row.push_str(&quoted(value));
        }
    }
    row.push(',');
    row.push_str(&host.map_or_else(String::new, quoted));
    row
}

/// First characters of a formula in common spreadsheets, ASCII and full width.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// Makes a value safe and quotes it (RFC 4180, section 2, rules 5 to 7).
fn quoted(value: &str) -> String {
    let mut value = safe(value);
    if value.trim_start().starts_with(FORMULA) || value.starts_with('\u{fffd}') {
        value.insert(0, '\'');
    }
    if value.contains([',', '"']) || value.trim() != value {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value
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
        let row = row(&record, Some("a,b"), 7);
        assert!(
            row.starts_with("2,1970-01-01T00:00:00.000007Z,alice,192.0.2.7,5000,upstream_closed,serve_oom,serve,c1,tracepoint,"),
            "{row}"
        );
        assert!(row.contains(",\"a,\"\"b\"\"\u{fffd}\","), "{row}");
        assert!(row.ends_with(",\"a,b\""), "{row}");
        assert_eq!(row.matches(',').count(), heading().matches(',').count() + 2);
    }

    #[test]
    fn no_value_is_a_formula_or_changes_the_terminal() {
        for (value, cell) in [
            ("=HYPERLINK(\"http://x\")", "\"'=HYPERLINK(\"\"http://x\"\")\""),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("+1", "'+1"),
            ("-1+1", "'-1+1"),
            (" =1", "' =1"),
            (" x", "\" x\""),
            ("\"+1", "\"\"\"+1\""),
            ("\u{ff1d}1", "'\u{ff1d}1"),
            ("\t=1", "'\u{fffd}=1"),
            ("\r=1", "'\u{fffd}=1"),
            ("\u{1b}[2Jx", "'\u{fffd}[2Jx"),
            ("a\u{202e}b\u{9b}c", "a\u{fffd}b\u{fffd}c"),
            ("up:rst_in@-3", "up:rst_in@-3"),
            ("12.5", "12.5"),
            ("2026-03-01T02:13:45.120Z", "2026-03-01T02:13:45.120Z"),
        ] {
            assert_eq!(quoted(value), cell, "{value:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_cell_is_one_line_without_escapes(value in ".{0,40}") {
            let cell = quoted(&value);
            proptest::prop_assert!(!cell.contains(char::is_control));
            proptest::prop_assert_eq!(cell.matches('"').count() % 2, 0);
            let inner = cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"'));
            let inner = inner.map_or_else(|| cell.clone(), |inner| inner.replace("\"\"", "\""));
            proptest::prop_assert!(!inner.trim_start().starts_with(['=', '+', '-', '@']));
        }
    }
}
