//! Alert rules say what happened, how bad it is, and are known to the runbook.

use std::collections::BTreeSet;

use crate::queries::{self, RULES};

const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];

#[test]
fn every_alert_has_a_severity_and_a_name_of_its_own() {
    for (name, _) in RULES {
        let alerts = queries::alerts(name);
        let names: BTreeSet<_> = alerts.iter().map(|alert| alert["alert"].as_str().unwrap()).collect();
        assert_eq!(names.len(), alerts.len(), "{name}");
        for alert in &alerts {
            let severity = alert["labels"]["severity"].as_str().unwrap();
            assert!(SEVERITIES.contains(&severity), "{name}: {severity}");
            let keys: Vec<_> = alert.as_object().unwrap().keys().map(String::as_str).collect();
            let known = ["alert", "expr", "for", "labels", "annotations"];
            assert!(keys.iter().all(|key| known.contains(key)), "{name}: {keys:?}");
        }
    }
}

#[test]
fn the_runbook_says_what_to_do_about_every_alert() {
    let runbook = queries::read("docs/RUNBOOK.md");
    for (name, _) in RULES {
        for alert in queries::alerts(name) {
            let alert = alert["alert"].as_str().unwrap();
            assert!(runbook.contains(&format!("`{alert}`")), "docs/RUNBOOK.md does not know {alert}");
        }
    }
}

#[test]
fn a_silent_journal_is_an_alert_even_when_no_stream_is_left() {
    let alerts = queries::alerts("deploy/loki/t3.rules.yml");
    let silent = alerts.iter().find(|alert| alert["alert"] == "DevvmJournalSilent").unwrap();
    let expr = silent["expr"].as_str().unwrap();
    assert!(expr.contains("or vector(0)") && expr.contains("< 1"), "{expr}");
    assert_eq!(silent["labels"]["severity"], "critical");
}
