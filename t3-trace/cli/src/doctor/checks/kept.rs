//! Check that the journal keeps records: a test entry, and the settings that drop entries. Pure.

use super::{
    super::{
        facts::{Facts, Journal, Setting, TestEntry},
        finding::{Check, Finding, State},
    },
    DISPATCH, bytes,
};

/// Priority of a record (`info`).
const PRIORITY: u8 = 6;
/// journald adds this much to a file at a time, in bytes; with less it drops entries.
const ROOM: u64 = 16 << 20;
/// Units that write records.
const WRITERS: [&str; 2] = [DISPATCH, "t3-trace.service"];

/// A reason for missing entries, and advice.
type Reason = (String, String);

pub(super) fn kept(facts: &Facts) -> Finding {
    let check = Check::JournalKeeps;
    let journal = &facts.journal;
    // Settings that drop records but not the entry of doctor.
    let of_units: Vec<Reason> = WRITERS.into_iter().filter_map(|unit| unit_level(facts, unit)).collect();
    let says = match &journal.test_entry {
        TestEntry::Missing => "a test entry of doctor was accepted and is not in the journal",
        _ if !of_units.is_empty() => return broken(check, "", of_units),
        TestEntry::Found => return Finding::ok(check, "a test entry was written and found"),
        _ => match max_level(journal).into_iter().chain(no_storage(journal)).collect::<Vec<_>>() {
            reasons if reasons.is_empty() => return not_tested(check, &journal.test_entry),
            reasons => return broken(check, "", reasons),
        },
    };
    let mut reasons: Vec<Reason> = max_level(journal).into_iter().chain(of_units).collect();
    reasons.extend(no_storage(journal));
    reasons.extend(no_space(journal));
    reasons.extend(rate_limited(journal));
    if reasons.is_empty() {
        let advice = "journalctl -u systemd-journald; journalctl --verify; then restart systemd-journald";
        reasons.push(("the settings and the disk do not explain it".to_owned(), advice.to_owned()));
    }
    broken(check, says, reasons)
}

/// The reasons are in the order of likelihood, each with its advice.
fn broken(check: Check, says: &str, reasons: Vec<Reason>) -> Finding {
    let (causes, advice): (Vec<String>, Vec<String>) = reasons.into_iter().unzip();
    let causes = causes.join("; ");
    let says = if says.is_empty() { causes } else { format!("{says}: {causes}") };
    Finding::of(check, State::Broken, says, advice.join("; "))
}

fn not_tested(check: Check, entry: &TestEntry) -> Finding {
    let (state, says, advice) = match entry {
        TestEntry::NotRoot => {
            (State::Note, "not checked with a test entry: not root".to_owned(), "run as root")
        }
        TestEntry::NotSent(why) => (State::Note, format!("no test entry was written: {why}"), "see journald"),
        TestEntry::NotSearched(why) => (
            State::Warning,
            format!("a test entry was written, and it is unknown whether it was kept: {why}"),
            "systemctl status systemd-journald; journalctl --sync",
        ),
        TestEntry::Found | TestEntry::Missing => (State::Ok, String::new(), ""),
    };
    Finding::of(check, state, says, advice)
}

fn max_level(journal: &Journal) -> Option<Reason> {
    let Setting { value, from } = journal.conf.max_level.as_ref()?;
    (level(value)? < PRIORITY).then(|| {
        (
            format!("MaxLevelStore={value} in {from} drops records, whose priority is info"),
            format!("set MaxLevelStore=info in {from}, systemctl restart systemd-journald"),
        )
    })
}

fn unit_level(facts: &Facts, unit: &str) -> Option<Reason> {
    let value = facts.units.get(unit)?.log_level_max.as_ref()?;
    (level(value)? < PRIORITY).then(|| {
        (
            format!("LogLevelMax={value} of {unit} drops its records, whose priority is info"),
            format!("remove LogLevelMax= from {unit} (systemctl edit), systemctl restart {unit} while idle"),
        )
    })
}

fn no_storage(journal: &Journal) -> Option<Reason> {
    let storage = journal.conf.storage.as_ref().filter(|storage| storage.value == "none")?;
    Some((
        format!("Storage=none in {}", storage.from),
        "set Storage=persistent there, systemctl restart systemd-journald".to_owned(),
    ))
}

fn no_space(journal: &Journal) -> Option<Reason> {
    let space = journal.space.as_ref()?;
    let place = space.path.display();
    if space.read_only {
        let advice = format!("remount {place} for writing, systemctl restart systemd-journald");
        return Some((format!("the file system of {place} is read-only"), advice));
    }
    (space.free < ROOM).then(|| {
        (
            format!("the file system of {place} is full ({} free)", bytes(space.free)),
            "free space on it; t3-trace then writes what is missing: t3-trace closes --reconcile".to_owned(),
        )
    })
}

fn rate_limited(journal: &Journal) -> Option<Reason> {
    let dropped = journal.suppressed.as_ref().is_ok_and(|dropped| !dropped.is_empty());
    dropped.then(|| ("journald dropped entries by its rate limit".to_owned(), "see rate-limit".to_owned()))
}

/// Number of a syslog priority, written as a name or a number; -1 of systemctl is none.
fn level(value: &str) -> Option<u8> {
    const NAMES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
    let named = NAMES.iter().position(|name| *name == value).and_then(|level| u8::try_from(level).ok());
    named.or_else(|| value.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        facts::{Space, Suppressed},
        tests::healthy,
    };

    fn setting(value: &str) -> Option<Setting> {
        Some(Setting { value: value.to_owned(), from: "zz.conf".to_owned() })
    }

    #[test]
    fn an_entry_that_was_found_is_enough() {
        assert_eq!(kept(&healthy()).state, State::Ok);
        let mut facts = healthy();
        // Reasons count only for an entry that is missing.
        facts.journal.space = Some(Space { path: "/var/log/journal".into(), free: 0, read_only: false });
        assert_eq!(kept(&facts).state, State::Ok);
    }

    #[test]
    fn a_missing_entry_has_every_reason_in_the_order_of_likelihood() {
        let mut facts = healthy();
        facts.journal.test_entry = TestEntry::Missing;
        let finding = kept(&facts);
        assert_eq!(finding.state, State::Broken);
        assert!(finding.says.ends_with("the settings and the disk do not explain it"), "{finding:?}");
        facts.journal.conf.max_level = setting("notice");
        facts.journal.conf.storage = setting("none");
        facts.journal.space =
            Some(Space { path: "/var/log/journal".into(), free: 3 << 20, read_only: false });
        let one = Suppressed { unit: DISPATCH.to_owned(), entries: 5, at: "Monday".to_owned() };
        facts.journal.suppressed = Ok(vec![one]);
        facts.units.get_mut(DISPATCH).unwrap().log_level_max = Some("4".to_owned());
        let finding = kept(&facts);
        let mut at = 0;
        for part in [
            "is not in the journal",
            "MaxLevelStore=notice in zz.conf",
            "LogLevelMax=4 of t3-dispatch.service",
            "Storage=none in zz.conf",
            "/var/log/journal is full (3 MiB free)",
            "rate limit",
        ] {
            at += finding.says[at..].find(part).unwrap_or_else(|| panic!("{part}: {finding:?}"));
        }
        assert!(finding.advice.unwrap().starts_with("set MaxLevelStore=info in zz.conf"));
    }

    #[test]
    fn levels_up_to_notice_drop_records_and_others_do_not() {
        for (value, drops) in [
            ("notice", true),
            ("5", true),
            ("emerg", true),
            ("info", false),
            ("6", false),
            ("debug", false),
            ("-1", false),
            ("loud", false),
        ] {
            let mut facts = healthy();
            facts.journal.test_entry = TestEntry::NotRoot;
            facts.journal.conf.max_level = setting(value);
            let expected = if drops { State::Broken } else { State::Note };
            assert_eq!(kept(&facts).state, expected, "{value}");
            let mut facts = healthy();
            facts.units.get_mut("t3-trace.service").unwrap().log_level_max = Some(value.to_owned());
            // Not doctor's unit: its entry is found in any case.
            let expected = if drops { State::Broken } else { State::Ok };
            assert_eq!(kept(&facts).state, expected, "{value}");
        }
    }

    #[test]
    fn without_a_result_nothing_is_claimed() {
        for (entry, state, said) in [
            (TestEntry::NotRoot, State::Note, "not root"),
            (TestEntry::NotSent("refused".to_owned()), State::Note, "no test entry was written: refused"),
            (TestEntry::NotSearched("timed out".to_owned()), State::Warning, "timed out"),
        ] {
            let mut facts = healthy();
            facts.journal.test_entry = entry;
            let finding = kept(&facts);
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.says.contains(said), "{finding:?}");
        }
    }

    #[test]
    fn a_read_only_file_system_is_named() {
        let mut facts = healthy();
        facts.journal.test_entry = TestEntry::Missing;
        facts.journal.space = Some(Space { path: "/var/log/journal".into(), free: 1 << 30, read_only: true });
        assert!(kept(&facts).says.contains("read-only"));
    }
}
