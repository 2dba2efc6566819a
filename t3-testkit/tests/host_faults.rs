//! The complete fault catalogue on this host, with a private journald, t3-trace and t3-dispatch.
//!
//! Needs root and `cargo xtask build`. Takes a few minutes because of kernel timers.
//! `T3_FAULTS=a,b` selects faults.

use t3_testkit::{
    faults::{self, FIRST_EIGHT, INCIDENTS, Options, Outcome, Row},
    journald::Journal,
    prerequisite,
};

#[test]
fn every_fault_gives_the_expected_record() {
    if prerequisite::or_skip("every_fault_gives_the_expected_record", prerequisite::root()).is_none() {
        return;
    }
    let journal = Journal::private().unwrap().into();
    let only = std::env::var("T3_FAULTS").unwrap_or_default();
    let mut only: Vec<_> = only.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if only.is_empty() && std::env::var_os("T3_QUICK").is_some() {
        eprintln!("T3_QUICK: only the eight basic ones of {} faults", faults::catalogue().len());
        only = FIRST_EIGHT.map(str::to_owned).to_vec();
    }
    if only.is_empty() {
        // The incidents have a separate test.
        let incident = |name: &str| INCIDENTS.iter().any(|incident| incident.fault == name);
        only = faults::catalogue()
            .iter()
            .filter(|fault| !incident(fault.name))
            .map(|fault| fault.name.to_owned())
            .collect();
    }
    let options = Options { only, ..Options::default() };
    let mut first = true;
    let rows = faults::run(&options, &journal, |row| faults::print(row, std::mem::take(&mut first))).unwrap();
    // At the end, where an excerpt of the output has them.
    let failed: String = rows.iter().filter(|row| row.outcome.failed()).map(Row::to_text).collect();
    assert!(failed.is_empty(), "\n{failed}");
    assert!(rows.iter().any(|row| row.outcome == Outcome::Passed), "no fault is possible on this host");
}
