//! Inhibit rules of Alertmanager: each names existing alerts and their labels, and none inhibits
//! itself.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde_json::Value;

use crate::queries::{self, RULES, list};

const FILE: &str = "deploy/alertmanager/t3-inhibit.yml";
/// Labels of the matched alerts, besides their name.
const LABELS: [&str; 2] = ["leg", "instance"];

/// Matchers by label (<https://prometheus.io/docs/alerting/latest/configuration/#matcher>).
fn matchers(texts: &Value) -> BTreeMap<String, String> {
    let form = Regex::new(r#"^([a-z_]+)(=|=~)"([^"]*)"$"#).unwrap();
    let matcher = |text: &Value| {
        let text = text.as_str().unwrap();
        let found = form.captures(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(&found[2] == "=~", found[3].contains('|'), "{text}");
        (found[1].to_owned(), found[3].to_owned())
    };
    list(texts).iter().map(matcher).collect()
}

#[test]
fn rules_name_existing_alerts_and_labels() {
    let names: BTreeSet<String> = RULES
        .iter()
        .flat_map(|(file, _)| queries::alerts(file))
        .map(|alert| alert["alert"].as_str().unwrap().to_owned())
        .collect();
    let file = queries::yaml(FILE);
    let rules = list(&file["inhibit_rules"]);
    assert!(rules.len() > 3);
    for rule in rules {
        let keys: BTreeSet<_> = rule.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(keys.is_subset(&["source_matchers", "target_matchers", "equal"].into()), "{keys:?}");
        let [source, target] = ["source_matchers", "target_matchers"].map(|side| matchers(&rule[side]));
        let alerts = |side: &BTreeMap<String, String>| -> BTreeSet<String> {
            side["alertname"].split('|').map(str::to_owned).collect()
        };
        let [source, inhibited] = [&source, &target].map(alerts);
        assert!(source.is_subset(&names) && inhibited.is_subset(&names), "{source:?} {inhibited:?}");
        assert!(source.is_disjoint(&inhibited), "{source:?} inhibits itself");
        let labels = target.keys().filter(|label| *label != "alertname").map(String::as_str);
        let equal = list(&rule["equal"]).iter().map(|label| label.as_str().unwrap());
        assert!(labels.chain(equal).all(|label| LABELS.contains(&label)), "{rule}");
    }
}
