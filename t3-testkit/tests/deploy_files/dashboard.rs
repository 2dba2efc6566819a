//! The Grafana dashboard: panels without overlap, data sources by variable, titles of two to four
//! words with the question in the description.

use std::collections::BTreeSet;

use serde_json::Value;
use t3_record::CloseRecord;

use crate::queries::{self, list};

fn panels() -> Vec<Value> {
    list(&queries::dashboard()["panels"]).to_vec()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a number"))
}

#[test]
fn a_panel_has_a_short_title_and_its_question_in_the_description() {
    for panel in panels() {
        let title = panel["title"].as_str().unwrap();
        assert!((2..=4).contains(&title.split(' ').count()) && !title.contains('?'), "{title}");
        if panel["type"] != "row" {
            let description = panel["description"].as_str().unwrap_or_default();
            assert!(description.contains("? ") && description.ends_with('.'), "{title}: {description}");
            assert!(!list(&panel["targets"]).is_empty(), "{title}");
        }
    }
}

#[test]
fn panels_have_unique_ids_and_do_not_overlap() {
    let panels = panels();
    let ids: BTreeSet<_> = panels.iter().map(|panel| number(&panel["id"])).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in &panels {
        let at = &panel["gridPos"];
        let (x, y, w, h) = (number(&at["x"]), number(&at["y"]), number(&at["w"]), number(&at["h"]));
        assert!(w > 0 && h > 0 && x + w <= 24, "{at}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} covers {cell:?}", panel["title"]);
        }
    }
}

#[test]
fn data_sources_are_variables_everywhere() {
    fn walk(value: &Value, found: &mut usize) {
        match value {
            Value::Object(map) => {
                if let Some(source) = map.get("datasource") {
                    let kind = source["type"].as_str().unwrap();
                    assert_eq!(source["uid"], format!("${{{kind}}}"), "{source}");
                    *found += 1;
                }
                map.values().for_each(|value| walk(value, found));
            }
            Value::Array(members) => members.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let dashboard = queries::dashboard();
    let mut found = 0;
    walk(&dashboard, &mut found);
    assert!(found > 40, "{found}");
    for name in ["loki", "prometheus"] {
        let variables = list(&dashboard["templating"]["list"]);
        let variable = variables.iter().find(|variable| variable["name"] == name).unwrap();
        assert_eq!((&variable["type"], &variable["query"]), (&Value::from("datasource"), &Value::from(name)));
    }
    for panel in panels().iter().filter(|panel| panel["type"] != "row") {
        for target in list(&panel["targets"]) {
            assert_eq!(target["datasource"], panel["datasource"], "{}", panel["title"]);
        }
        let references: Vec<_> = list(&panel["targets"]).iter().map(|target| &target["refId"]).collect();
        let different: BTreeSet<_> = references.iter().map(|reference| reference.as_str()).collect();
        assert_eq!(different.len(), references.len(), "{}", panel["title"]);
    }
}

#[test]
fn variables_are_used_and_used_ones_are_defined() {
    let dashboard = queries::dashboard();
    let text = dashboard.to_string();
    let variables = list(&dashboard["templating"]["list"]);
    for variable in variables {
        let name = variable["name"].as_str().unwrap();
        assert!(
            text.contains(&format!("${name}")) || text.contains(&format!("${{{name}}}")),
            "{name} is not used"
        );
    }
    // Expanding a query fails on other variables.
    assert!(queries::all().len() > 30);
}

#[test]
fn the_table_shows_keys_of_the_record() {
    let panels = panels();
    let table = panels.iter().find(|panel| panel["type"] == "table").unwrap();
    let include = list(&table["transformations"])
        .iter()
        .find(|step| step["id"] == "filterFieldsByName")
        .map(|step| list(&step["options"]["include"]["names"]))
        .unwrap();
    let columns: Vec<_> = include.iter().map(|name| name.as_str().unwrap()).collect();
    for column in columns.iter().filter(|column| **column != "Time") {
        assert!(CloseRecord::KEYS.iter().any(|key| key.name == *column), "no record has {column}");
    }
    for wanted in ["Time", "verdict", "user", "dur_ms", "psi_mem", "psi_io", "psi_cpu", "conn"] {
        assert!(columns.contains(&wanted), "{wanted}");
    }
    for step in list(&table["fieldConfig"]["overrides"]) {
        let name = step["matcher"]["options"].as_str().unwrap();
        assert!(columns.contains(&name), "{name} has a format but no column");
    }
}

#[test]
fn the_dashboard_has_a_stable_uid_and_no_id() {
    let dashboard = queries::dashboard();
    assert!(number(&dashboard["schemaVersion"]) >= 39);
    assert!(dashboard["uid"].as_str().is_some_and(|uid| uid.len() <= 40));
    assert_eq!(dashboard.get("id"), None, "an id belongs to one Grafana");
}
