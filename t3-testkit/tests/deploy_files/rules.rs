//! Alert rules have a severity, a summary, a next step, and an entry in the runbook.

use std::collections::BTreeSet;

use crate::queries::{self, RULES, WITHOUT_PROMETHEUS};

const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];

#[test]
fn every_alert_has_a_unique_name_a_severity_a_summary_and_a_next_step() {
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
            let annotation = |key: &str| alert["annotations"][key].as_str().unwrap_or_default().to_owned();
            let (summary, description) = (annotation("summary"), annotation("description"));
            assert!(!summary.is_empty() && !summary.ends_with('.'), "{name}: {summary:?}");
            assert!(description.ends_with('.'), "{name}: {summary}: {description:?}");
        }
    }
}

#[test]
fn the_runbook_has_an_action_for_every_alert() {
    let runbook = queries::read("docs/RUNBOOK.md");
    for (file, _) in RULES {
        for alert in queries::alerts(file) {
            let name = alert["alert"].as_str().unwrap();
            assert!(runbook.contains(&format!("\n### {name}\n")), "docs/RUNBOOK.md lacks {name}");
            // The package installs the page there.
            let url = format!("file:///usr/share/doc/t3-dispatch/RUNBOOK.md#{}", name.to_lowercase());
            assert_eq!(alert["annotations"]["runbook_url"], url, "{file}");
        }
    }
}

#[test]
fn each_alert_is_in_one_of_the_files_that_a_site_loads() {
    let names = |file: &str| -> Vec<String> {
        queries::alerts(file).iter().map(|alert| alert["alert"].as_str().unwrap().to_owned()).collect()
    };
    let together: Vec<_> = RULES
        .iter()
        .filter(|(file, _)| *file != WITHOUT_PROMETHEUS)
        .flat_map(|(file, _)| names(file))
        .collect();
    let unique: BTreeSet<_> = together.iter().collect();
    assert_eq!(unique.len(), together.len(), "{together:?}");
    let instead: BTreeSet<_> = names(WITHOUT_PROMETHEUS).into_iter().collect();
    let metrics: BTreeSet<_> = names("deploy/prometheus/t3-dispatch.rules.yml").into_iter().collect();
    assert!(instead.is_subset(&metrics), "{instead:?}");
    let records = names("deploy/loki/t3.rules.yml");
    assert!(records.iter().all(|name| !instead.contains(name)), "{records:?}");
}

#[test]
fn a_silent_journal_is_an_alert_even_without_streams() {
    let alerts = queries::alerts("deploy/loki/t3.rules.yml");
    let silent = alerts.iter().find(|alert| alert["alert"] == "DevvmJournalSilent").unwrap();
    let expr = silent["expr"].as_str().unwrap();
    assert!(expr.contains("or vector(0)") && expr.contains("< 1"), "{expr}");
    assert_eq!(silent["labels"]["severity"], "critical");
}
