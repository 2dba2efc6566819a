//! Six real incidents, replayed as faults: each record must contain the diagnosis.
//!
//! Needs root and `cargo xtask build`.

use t3_record::CloseRecord;
use t3_testkit::{
    faults::{self, INCIDENTS, Options, Outcome},
    journald::Journal,
    prerequisite,
};

#[test]
fn the_records_of_six_incidents_contain_the_diagnosis() {
    if prerequisite::or_skip("the_records_of_six_incidents_contain_the_diagnosis", prerequisite::root())
        .is_none()
    {
        return;
    }
    if std::env::var_os("T3_QUICK").is_some() {
        eprintln!("SKIPPED by T3_QUICK: the incidents take longer than the watchdogs");
        return;
    }
    let journal = Journal::private().unwrap().into();
    let known: Vec<_> = faults::catalogue().iter().map(|fault| fault.name).collect();
    let mut wrong = Vec::new();
    let names = INCIDENTS.iter().map(|incident| incident.fault.to_owned());
    let only = names.filter(|name| known.contains(&name.as_str())).collect();
    let options = Options { only, ..Options::default() };
    let rows = faults::run(&options, &journal, |_| ()).unwrap();
    println!("{:<68} {:<10} {:<14} how", "incident", "segment", "verdict");
    for incident in INCIDENTS {
        let row = rows.iter().find(|row| row.fault == incident.fault);
        let Some(row) = row else {
            println!("{:<68} no fault of this name yet: {}", incident.what, incident.fault);
            wrong.push(incident.fault);
            continue;
        };
        if let Outcome::Impossible(why) = &row.outcome {
            println!("{:<68} not possible here: {why}", incident.what);
            continue;
        }
        print!("{}", if row.outcome.failed() { row.to_text() } else { String::new() });
        let records: Vec<_> =
            row.records.iter().filter_map(|line| CloseRecord::from_line(line).ok()).collect();
        let right = |record: &CloseRecord| {
            let how = record.how.map(|how| how.to_string()).unwrap_or_default();
            println!("{:<68} {:<10} {:<14} {how}", incident.what, record.segment, record.verdict);
            (record.verdict.as_str(), how.as_str()) == incident.diagnosis
                && record.segment.as_str() == incident.segment
        };
        if row.outcome.failed() || records.is_empty() || !records.iter().all(right) {
            wrong.push(incident.fault);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
