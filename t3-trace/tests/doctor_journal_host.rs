//! `t3-trace doctor` with a journald that accepts entries and does not keep them. Needs root.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{fs, process::Command};

use serde_json::Value;
use t3_testkit::{journald::Journal, sys};

/// Size of the disk of a journal, in bytes.
const DISK: u64 = 64 << 20;

/// State, text and advice of the check `journal-keeps`.
fn keeps(journal: &Journal) -> (String, String, String) {
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_t3-trace"));
    doctor.args(["doctor", "--json", "--socket", "/no/such/socket", "--table", "/no/such/table"]);
    journal.lend(&mut doctor).unwrap();
    let report: Value = serde_json::from_slice(&doctor.output().unwrap().stdout).unwrap();
    let found = report["checks"].as_array().unwrap().iter().find(|one| one["check"] == "journal-keeps");
    let text = |key: &str| found.unwrap()[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("says"), text("do"))
}

/// Whether this user can have a private journald; says so otherwise.
fn can_run(test: &str) -> bool {
    if sys::is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "CI must run {test} as root: the private journald needs it");
    eprintln!("SKIPPED {test}: needs root for a private journald");
    false
}

#[test]
fn a_level_that_drops_records_is_found_and_named() {
    if !can_run("a_level_that_drops_records_is_found_and_named") {
        return;
    }
    let journal = Journal::unfollowed().unwrap();
    let run = journal.directory().unwrap().ancestors().nth(2).unwrap().to_owned();
    let conf = run.join("systemd/journald.conf.d/zz.conf");
    for (text, state, said) in [
        (None, "ok", "a test entry was written and found"),
        (
            Some("[Journal]\nMaxLevelStore=notice\n"),
            "broken",
            "MaxLevelStore=notice in /run/systemd/journald.conf.d/zz.conf",
        ),
        (Some("[Journal]\nMaxLevelStore=info\n"), "ok", "found"),
        (Some("[Journal]\nStorage=none\n"), "broken", "Storage=none in /run/systemd/journald.conf.d/zz.conf"),
    ] {
        let _ = fs::remove_file(&conf);
        if let Some(text) = text {
            fs::write(&conf, text).unwrap();
        }
        journal.stop().unwrap();
        journal.start_again().unwrap();
        let (found, says, advice) = keeps(&journal);
        assert_eq!(found, state, "{text:?}: {says}");
        assert!(says.contains(said), "{text:?}: {says}");
        assert_eq!(says.contains("is not in the journal"), state == "broken", "{text:?}: {says}");
        assert_eq!(advice.contains("zz.conf") || advice.contains("there"), state == "broken", "{advice}");
    }
}

#[test]
fn a_full_disk_is_found_and_named() {
    if !can_run("a_full_disk_is_found_and_named") {
        return;
    }
    let journal = Journal::on_disk_of(DISK).unwrap();
    assert_eq!(keeps(&journal).0, "ok", "the control");
    let filler = journal.exhaust().unwrap();
    let (state, says, advice) = keeps(&journal);
    assert_eq!(state, "broken", "{says}");
    assert!(says.contains("is full"), "{says}");
    assert!(advice.contains("closes --reconcile"), "{advice}");
    drop(filler);
    assert_eq!(keeps(&journal).0, "ok", "freed again");
}
