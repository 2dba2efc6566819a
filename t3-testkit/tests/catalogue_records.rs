//! One record of each fault of the catalogue, as its expectations describe it. The tests of
//! `t3-trace --from loki` read them (`t3-trace/cli/tests/loki_store.rs`); `cargo xtask docs` writes
//! the file.

#![expect(clippy::panic, reason = "a failed helper fails its test")]

use std::{fs, path::Path};

use t3_record::CloseRecord;
use t3_testkit::faults::{Expect, Fault, catalogue};

/// A value that the expectation accepts; `None` for an absent key.
fn value(fault: &Fault, key: &'static str, example: &str) -> Option<String> {
    let value = of(fault, fault.expected.of(key)?, example)?;
    // The program of the catalogue is the sender of some signals: now it is this test.
    let own = format!("[{}]", std::process::id());
    Some(if value.ends_with(&own) { "t3-faults[4242]".to_owned() } else { value })
}

fn of(fault: &Fault, expect: &Expect, example: &str) -> Option<String> {
    match expect {
        Expect::Is(text) => Some(text.clone()),
        Expect::OneOf(texts) => texts.first().cloned(),
        Expect::Begins(text) => Some(begun(text)),
        Expect::Range(low, _) | Expect::AbsentOr(low, _) => Some(low.to_string()),
        Expect::Present | Expect::Free => Some(example.to_owned()),
        Expect::Absent => None,
        Expect::Maybe(expect) => of(fault, expect, example),
        Expect::StallSegment => Some("serve".to_owned()),
        Expect::Near(key, _) => of(fault, fault.expected.of(key)?, example),
    }
}

/// A text with this beginning: events of a chain, or a process.
fn begun(text: &str) -> String {
    let rest = match text.rsplit_once('@') {
        Some((_, "")) => "-3",
        Some((_, "-")) => "3",
        Some(_) => "",
        None => "[812]",
    };
    format!("{text}{rest}")
}

fn line(fault: &Fault) -> String {
    let record = CloseRecord::from_pairs(|key| {
        let key = CloseRecord::KEYS.iter().find(|known| known.name == key)?;
        value(fault, key.name, key.example).map(Into::into)
    });
    let record = record.unwrap_or_else(|error| panic!("{}: {error}", fault.name));
    format!("{} {}\n", fault.name, record.to_line())
}

#[test]
fn every_fault_has_its_record() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../t3-trace/cli/tests/loki_store/catalogue.txt");
    let expected: String = catalogue().iter().map(line).collect();
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        fs::write(&file, &expected).unwrap();
    }
    let same = fs::read_to_string(&file).is_ok_and(|found| found == expected);
    assert!(same, "{} differs from the catalogue; run `cargo xtask docs`", file.display());
}
