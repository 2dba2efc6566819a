//! A line of Loki as the journal entry that it was. Pure.
//!
//! A shipper sends the `MESSAGE` of an entry as the line, its time as nanoseconds, and of its
//! fields the unit as a label (the journal targets of promtail and Alloy); the label of the host is
//! a part of their configuration. A record has all its keys in its line.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use t3_record::{
    AttemptsRecord, BurstRecord, CloseRecord, OpenRecord, TcpCloseRecord, journal::field, logfmt,
};

use super::wanted::{INIT, Kind};
use crate::journal::export_format::Entry;

/// Field of each key of a record.
static FIELDS: LazyLock<HashMap<&'static str, String>> = LazyLock::new(|| {
    let keys =
        [CloseRecord::KEYS, OpenRecord::KEYS, BurstRecord::KEYS, AttemptsRecord::KEYS, TcpCloseRecord::KEYS];
    keys.into_iter().flatten().map(|key| (key.name, field(key.name))).collect()
});

/// Replaces the content of `entry` by that of a line at `ns` nanoseconds since the epoch.
pub fn fill(entry: &mut Entry, ns: i64, labels: &BTreeMap<String, String>, line: &str) {
    let label = |name: &str| labels.get(name).map(String::as_str);
    let unit = label("unit").unwrap_or_default();
    entry.clear();
    entry.add("__REALTIME_TIMESTAMP", &ns.div_euclid(1000).max(0).to_string());
    entry.add("_SYSTEMD_UNIT", unit);
    if let Some(host) = label("host") {
        entry.add("_HOSTNAME", host);
    }
    entry.add("MESSAGE", line);
    if unit == INIT {
        // The only process of this unit.
        entry.add("_PID", "1");
        entry.add("_UID", "0");
        return;
    }
    let Some((kind, rest)) = record(line) else { return };
    entry.add("MESSAGE_ID", kind.id());
    // Without its keys it counts as a record that cannot be read.
    for (key, value) in logfmt::parse(rest).unwrap_or_default() {
        if let Some(name) = FIELDS.get(key) {
            entry.add(name, &value);
        }
    }
}

/// Kind and keys of a record's line.
fn record(line: &str) -> Option<(Kind, &str)> {
    Kind::ALL.into_iter().find_map(|kind| {
        let rest = line.strip_prefix(kind.prefix())?;
        rest.starts_with(' ').then_some((kind, rest))
    })
}

#[cfg(test)]
mod tests {
    use t3_record::journal::CLOSE_ID;

    use super::*;

    fn entry(unit: &str, line: &str) -> Entry {
        let labels = [("unit", unit), ("host", "devvm"), ("job", "x")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut entry = Entry::default();
        entry.add("LEFT", "over");
        fill(&mut entry, 1_700_000_042_123_456_789, &labels, line);
        entry
    }

    #[test]
    fn a_record_has_the_fields_of_its_journal_entry() {
        let example = |key: &str| CloseRecord::KEYS.iter().find(|k| k.name == key).map(|k| k.example.into());
        let mut full = CloseRecord::from_pairs(example).unwrap();
        full.ws_reason = Some("so \"long\"\nand = thanks \\".to_owned());
        let entry = entry("t3-dispatch.service", &full.to_line());
        for (name, value) in full.to_fields().iter().filter(|(name, _)| name.starts_with("T3_")) {
            assert_eq!(entry.get(name), Some(value.as_str()), "{name}");
        }
        assert_eq!((entry.micros(), entry.get("MESSAGE_ID")), (Some(1_700_000_042_123_456), Some(CLOSE_ID)));
        assert_eq!((entry.get("_HOSTNAME"), entry.get("LEFT")), (Some("devvm"), None));
        assert_eq!(crate::closes::entry::record(&entry).unwrap(), full);
    }

    #[test]
    fn other_lines_are_no_records_and_a_broken_record_has_no_keys() {
        for line in ["ws closed by x", "ws close", "listening", ""] {
            assert_eq!(entry("t3-dispatch.service", line).get("MESSAGE_ID"), None, "{line}");
        }
        let broken = entry("t3-dispatch.service", "ws close user=\"ann");
        assert_eq!((broken.get("MESSAGE_ID"), broken.get("T3_USER")), (Some(CLOSE_ID), None));
        let systemd = entry(INIT, "ws close user=ann");
        assert_eq!((systemd.get("_PID"), systemd.get("MESSAGE_ID")), (Some("1"), None));
    }
}
