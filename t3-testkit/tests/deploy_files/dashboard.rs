//! The Grafana dashboard: panels without overlap, data sources by variable, titles of two to four
//! words with the question in the description.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use t3_record::{
    CloseRecord,
    vocabulary::{Segment, Verdict},
};

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

/// Fixed colours of a panel by name of a series.
fn colours(panel: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let fixed = list(&panel["fieldConfig"]["overrides"]).iter().filter_map(|change| {
        let colour = list(&change["properties"]).iter().find(|property| property["id"] == "color")?;
        Some((text(&change["matcher"]["options"]), text(&colour["value"]["fixedColor"])))
    });
    fixed.collect()
}

#[test]
fn each_verdict_and_segment_has_its_own_colour_in_every_panel() {
    let panels = panels();
    let of = |title: &str| panels.iter().find(|panel| panel["title"] == title).unwrap();
    let verdicts = Verdict::ALL.iter().map(|verdict| verdict.as_str()).collect::<BTreeSet<_>>();
    let segments = Segment::ALL.iter().map(|segment| segment.as_str()).collect::<BTreeSet<_>>();
    let table = of("Recent closes");
    for (names, column, titles) in [
        (verdicts, "verdict", &["Closes by verdict", "Short sessions"][..]),
        (segments, "segment", &["Closes by segment"]),
    ] {
        let first = colours(of(titles[0]));
        assert_eq!(first.keys().map(String::as_str).collect::<BTreeSet<_>>(), names);
        assert_eq!(first.values().collect::<BTreeSet<_>>().len(), names.len(), "{first:?}");
        for title in titles {
            assert_eq!(colours(of(title)), first, "{title}");
        }
        // The table has them as mappings of the values.
        let overrides = list(&table["fieldConfig"]["overrides"]);
        let column = overrides.iter().find(|change| change["matcher"]["options"] == column).unwrap();
        let mappings = list(&column["properties"]).iter().find(|property| property["id"] == "mappings");
        let mapped = mappings.unwrap()["value"][0]["options"].as_object().unwrap();
        let mapped = mapped.iter().map(|(name, to)| (name.clone(), to["color"].as_str().unwrap().to_owned()));
        assert_eq!(mapped.collect::<BTreeMap<_, _>>(), first);
    }
}

#[test]
fn no_data_is_distinguished_from_no_closes() {
    for panel in panels() {
        let defaults = &panel["fieldConfig"]["defaults"];
        let queries: Vec<_> =
            list(&panel["targets"]).iter().map(|target| target["expr"].as_str().unwrap()).collect();
        let title = &panel["title"];
        if queries.iter().any(|query| query.contains("count_over_time") && query.contains("ws close")) {
            // 0 comes from another query with a result, and a missing result has a text.
            assert!(queries.iter().any(|query| query.contains("* 0")), "{title}: {queries:?}");
            assert!(defaults["noValue"].as_str().is_some_and(|text| text.starts_with("no ")), "{title}");
            assert!(queries.iter().all(|query| !query.contains("vector(0)")), "{title}: {queries:?}");
        }
    }
}

#[test]
fn the_table_has_one_time_column_and_links_to_explore_and_the_runbook() {
    let dashboard = queries::dashboard();
    let panels = panels();
    let table = panels.iter().find(|panel| panel["type"] == "table").unwrap();
    for step in list(&table["transformations"]).iter().filter(|step| step["id"] == "extractFields") {
        // The rows keep their time; keepTime would add it once more.
        assert_eq!(
            (&step["options"]["replace"], &step["options"]["keepTime"]),
            (&false.into(), &false.into())
        );
    }
    for column in ["conn", "ray"] {
        let change = list(&table["fieldConfig"]["overrides"]);
        let change = change.iter().find(|change| change["matcher"]["options"] == column).unwrap();
        let urls = change["properties"][0]["value"].to_string();
        assert!(urls.contains(queries::EXPLORE) && urls.contains("${runbook}"), "{column}: {urls}");
    }
    let runbook = queries::read("docs/RUNBOOK.md");
    let heading = |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    let anchors: BTreeSet<_> = runbook.lines().filter(|line| line.starts_with("##")).map(heading).collect();
    let links = queries::links(&dashboard);
    assert!(links.len() >= 5, "{links:?}");
    for url in links {
        let known = url.starts_with(queries::EXPLORE) || url.starts_with("${runbook}");
        assert!(known && !url.contains([' ', '"']), "{url}");
        if let Some((_, anchor)) = url.split_once('#') {
            assert!(anchors.contains(anchor), "{anchor} is not in {anchors:?}");
        }
    }
}

#[test]
fn the_dashboard_is_provisioned_from_its_file() {
    let file = queries::yaml("deploy/grafana/t3-dashboards.yaml");
    assert_eq!(file["apiVersion"], 1);
    let provider = &file["providers"][0];
    assert_eq!(provider["type"], "file");
    let folder = provider["options"]["path"].as_str().unwrap();
    let install = queries::read("docs/INSTALL.md");
    let name = queries::DASHBOARD.rsplit('/').next().unwrap();
    assert!(install.contains(&format!("grafana/{name} {folder}/{name}\n")), "INSTALL.md copies it elsewhere");
    // A dashboard for the provisioning has no inputs, which only an import by hand resolves.
    assert_eq!(queries::dashboard().get("__inputs"), None);
}

#[test]
fn the_dashboard_has_a_stable_uid_and_no_id() {
    let dashboard = queries::dashboard();
    assert!(number(&dashboard["schemaVersion"]) >= 39);
    assert!(dashboard["uid"].as_str().is_some_and(|uid| uid.len() <= 40));
    assert_eq!(dashboard.get("id"), None, "an id belongs to one Grafana");
}
