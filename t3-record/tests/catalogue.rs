//! `deploy/journald/t3-dispatch.catalog`: each record has an entry under its `MESSAGE_ID`, and each
//! `@FIELD@` in it is a field that every record of that kind has; journalctl prints the name of any
//! other field.

#![expect(clippy::expect_used, reason = "helpers of tests")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use t3_record::{
    AttemptsRecord, BurstRecord, CloseRecord, OpenRecord, TcpCloseRecord,
    journal::{ATTEMPTS_ID, BURST_ID, CLOSE_ID, OPEN_ID, PLAIN, TCP_CLOSE_ID},
    record::Key,
};

/// One entry: its header fields and its text.
struct Entry {
    headers: BTreeMap<String, String>,
    text: String,
}

fn catalogue() -> BTreeMap<String, Entry> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/journald/t3-dispatch.catalog");
    let file = fs::read_to_string(path).expect("the catalogue is there");
    let file: String = file.lines().filter(|line| !line.starts_with('#')).map(|l| format!("{l}\n")).collect();
    let mut entries = BTreeMap::new();
    for part in format!("\n{}", file.trim_start()).split("\n-- ").skip(1) {
        let (id, rest) = part.split_once('\n').expect("an entry has lines");
        let (headers, text) = rest.split_once("\n\n").expect("an entry has headers and a text");
        let headers = headers.lines().filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        entries.insert(id.to_owned(), Entry { headers, text: text.to_owned() });
    }
    entries
}

/// The names between two `@`.
fn fields(text: &str) -> Vec<&str> {
    text.split('@').skip(1).step_by(2).collect()
}

const KINDS: [(&str, &[Key]); 5] = [
    (CLOSE_ID, CloseRecord::KEYS),
    (OPEN_ID, OpenRecord::KEYS),
    (BURST_ID, BurstRecord::KEYS),
    (ATTEMPTS_ID, AttemptsRecord::KEYS),
    (TCP_CLOSE_ID, TcpCloseRecord::KEYS),
];

#[test]
fn every_record_has_an_entry_and_every_entry_a_record() {
    let entries = catalogue();
    let mut ids: Vec<_> = KINDS.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    assert_eq!(entries.keys().map(String::as_str).collect::<Vec<_>>(), ids);
    for (id, entry) in &entries {
        for header in ["Subject", "Defined-By", "Documentation"] {
            assert!(entry.headers.contains_key(header), "{id} lacks {header}");
        }
        assert!(!entry.text.trim().is_empty(), "{id} says nothing");
    }
}

#[test]
fn only_fields_that_are_always_there_are_filled_in() {
    let entries = catalogue();
    for (id, keys) in KINDS {
        let always = |name: &str| {
            let key = PLAIN.iter().find(|(_, plain)| *plain == name).map(|(key, _)| *key);
            keys.iter().any(|known| known.required && Some(known.name) == key)
        };
        let entry = &entries[id];
        let used: Vec<_> = fields(&entry.headers["Subject"]).into_iter().chain(fields(&entry.text)).collect();
        assert!(!used.is_empty(), "{id} tells nothing of its record");
        for name in used {
            assert!(always(name), "{id}: @{name}@ is not in every record");
        }
    }
}

/// systemd considers `@NAME@` a field only if NAME consists of capitals and underscores.
#[test]
fn plain_names_are_such_as_journald_fills_in() {
    for (_, plain) in PLAIN {
        assert!(plain.chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{plain}");
    }
}

#[test]
fn a_close_says_how_to_have_it_explained() {
    for id in [CLOSE_ID, TCP_CLOSE_ID] {
        assert!(catalogue()[id].text.contains("t3-trace explain @WS_CONN@"), "{id}");
    }
}
