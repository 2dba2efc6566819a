//! The whole catalogue of faults on this host, with a private journald, t3-trace and t3-dispatch.
//!
//! Needs root and `cargo xtask build`. Takes a few minutes: kernel timers take their time.
//! `T3_FAULTS=a,b` runs only some.

use t3_testkit::{
    faults::{self, FIRST_EIGHT, INCIDENTS, Options, Outcome},
    journald::Journal,
    prerequisite,
};

#[test]
fn every_fault_gives_the_record_that_is_true() {
    if prerequisite::or_skip("every_fault_gives_the_record_that_is_true", prerequisite::root()).is_none() {
        return;
    }
    let journal = Journal::private().unwrap().into();
    let only = std::env::var("T3_FAULTS").unwrap_or_default();
    let mut only: Vec<_> = only.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if only.is_empty() && std::env::var_os("T3_QUICK").is_some() {
        eprintln!(
            "T3_QUICK: the eight that everything else builds on, of {} faults",
            faults::catalogue().len()
        );
        only = FIRST_EIGHT.map(str::to_owned).to_vec();
    }
    if only.is_empty() {
        // The incidents have a test of their own.
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
    let failed: Vec<_> = rows.iter().filter(|row| row.outcome.failed()).map(|row| row.fault).collect();
    assert!(failed.is_empty(), "{failed:?}; the table above says where");
    assert!(rows.iter().any(|row| row.outcome == Outcome::Passed), "nothing could be run here");
}
