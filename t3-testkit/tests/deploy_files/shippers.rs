//! Configurations of the shippers: they read the journal at any path, create few streams, and list
//! every key of a record.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde_json::Value as Json;
use t3_record::{AttemptsRecord, BurstRecord, CloseRecord, OpenRecord, TcpCloseRecord};
use t3_trace_cli::store::{Kind, Want, selector};

use crate::{
    alloy::{self, Block, Value},
    logql,
    queries::{self, list},
    unit_file::Unit,
};

const ALLOY: &str = "deploy/alloy/devvm.alloy";
const PROMTAIL: &str = "deploy/promtail/devvm-promtail.yaml";
/// All labels that a stream may have.
const LABELS: [&str; 4] = ["job", "host", "unit", "identifier"];
/// Alloy's blocks (Alloy 1.x): allowed attributes, then required ones.
const SCHEMA: [(&str, &[&str], &[&str]); 11] = [
    (
        "loki.source.journal",
        &["max_age", "labels", "relabel_rules", "forward_to", "matches", "format_as_json"],
        &["forward_to"],
    ),
    ("loki.relabel", &["forward_to", "max_cache_size"], &["forward_to"]),
    ("rule", &["source_labels", "regex", "target_label", "replacement", "action", "separator"], &[]),
    ("loki.process", &["forward_to"], &["forward_to"]),
    ("stage.match", &["selector", "action", "pipeline_name", "drop_counter_reason"], &["selector"]),
    ("stage.logfmt", &["mapping", "source", "regex"], &["mapping"]),
    ("stage.structured_metadata", &["values", "regex"], &["values"]),
    ("loki.write", &["external_labels", "max_streams"], &[]),
    ("endpoint", &["url", "tenant_id", "name", "headers", "bearer_token_file"], &["url"]),
    ("basic_auth", &["username", "password", "password_file"], &[]),
    ("tls_config", &["ca_file", "server_name", "insecure_skip_verify"], &[]),
];

fn file() -> Block {
    alloy::read(&queries::read(ALLOY)).unwrap_or_else(|error| panic!("{ALLOY}: {error}"))
}

fn component<'a>(file: &'a Block, name: &'a str) -> &'a Block {
    file.all(name).next().unwrap_or_else(|| panic!("no {name}"))
}

/// Keys of all records, each once, in the order of the records.
fn keys_in_order() -> Vec<&'static str> {
    let records =
        [CloseRecord::KEYS, OpenRecord::KEYS, BurstRecord::KEYS, AttemptsRecord::KEYS, TcpCloseRecord::KEYS];
    let all = records.into_iter().flatten();
    let mut keys = Vec::new();
    for key in all {
        if !keys.contains(&key.name) {
            keys.push(key.name);
        }
    }
    keys
}

fn keys() -> BTreeSet<&'static str> {
    keys_in_order().into_iter().collect()
}

/// `text` with the members of both maps of keys replaced.
fn with_keys(text: &str) -> String {
    let keys = keys_in_order();
    let width = keys.iter().map(|key| key.len()).max().unwrap();
    let members: String = keys.iter().map(|key| format!("\t\t\t\t{key:<width$} = \"\",\n")).collect();
    let mut text = text.to_owned();
    for map in ["mapping", "values"] {
        let begin = format!("\t\t\t{map} = {{\n");
        let from = text.find(&begin).unwrap_or_else(|| panic!("{ALLOY} has no {map}")) + begin.len();
        let to = from + text[from..].find("\t\t\t}").unwrap();
        text.replace_range(from..to, &members);
    }
    text
}

/// `cargo xtask docs` updates the lists.
#[test]
fn the_lists_of_keys_are_those_of_the_records() {
    let path = queries::file(ALLOY);
    let expected = with_keys(&std::fs::read_to_string(&path).unwrap());
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        expected,
        "run `cargo xtask docs` and commit {ALLOY}"
    );
}

fn attributes_are_known(block: &Block) {
    let (_, may, must) = SCHEMA
        .iter()
        .find(|(name, ..)| *name == block.name)
        .unwrap_or_else(|| panic!("missing block {}", block.name));
    for name in block.attributes.keys() {
        assert!(may.contains(&name.as_str()), "{} has no {name}", block.name);
    }
    for name in *must {
        assert!(block.attributes.contains_key(*name), "{} needs {name}", block.name);
    }
    block.blocks.iter().for_each(attributes_are_known);
}

fn references(block: &Block, found: &mut Vec<String>) {
    for value in block.attributes.values() {
        match value {
            Value::Reference(name) => found.push(name.clone()),
            Value::List(members) => found.extend(members.iter().filter_map(|member| match member {
                Value::Reference(name) => Some(name.clone()),
                _ => None,
            })),
            _ => {}
        }
    }
    block.blocks.iter().for_each(|block| references(block, found));
}

#[test]
fn alloy_has_only_known_attributes_and_connected_components() {
    let file = file();
    assert!(file.attributes.is_empty());
    file.blocks.iter().for_each(attributes_are_known);
    let exports: BTreeSet<String> = file
        .blocks
        .iter()
        .map(|block| {
            let what = if block.name == "loki.relabel" { "rules" } else { "receiver" };
            format!("{}.{}.{what}", block.name, block.label.as_deref().unwrap())
        })
        .collect();
    let mut targets = Vec::new();
    file.blocks.iter().for_each(|block| references(block, &mut targets));
    for name in &targets {
        assert!(exports.contains(name), "nothing exports {name}: {exports:?}");
    }
    let parts = ["loki.relabel.devvm.rules", "loki.process.records.receiver", "loki.write.loki.receiver"];
    assert!(parts.iter().all(|part| targets.iter().any(|name| name == part)), "{targets:?}");
}

#[test]
fn no_shipper_sets_a_path_of_the_journal() {
    let file = file();
    let journal = component(&file, "loki.source.journal");
    assert!(!journal.attributes.contains_key("path"), "an empty path reads both places");
    let promtail = queries::yaml(PROMTAIL);
    for job in list(&promtail["scrape_configs"]) {
        let journal = job["journal"].as_object().expect("a job of the journal");
        assert!(!journal.contains_key("path"), "{job}");
    }
}

#[test]
fn every_record_key_becomes_structured_metadata_and_none_a_label() {
    let file = file();
    let process = component(&file, "loki.process");
    let found = component(process, "stage.match");
    let maps = [("stage.logfmt", "mapping"), ("stage.structured_metadata", "values")];
    for (stage, attribute) in maps {
        let stage = component(found, stage);
        let Some(Value::Map(map)) = stage.attributes.get(attribute) else { panic!("no {attribute}") };
        let names: BTreeSet<&str> = map.keys().map(String::as_str).collect();
        assert_eq!(names, keys(), "{attribute} of {}", stage.name);
        assert!(map.values().all(|value| *value == Value::Text(String::new())), "a key keeps its name");
    }
    for rule in component(&file, "loki.relabel").all("rule") {
        let target = rule.text("target_label").unwrap();
        assert!(LABELS.contains(&target), "{target}");
    }
}

#[test]
fn alloy_selects_exactly_the_records_by_their_prefix() {
    let file = file();
    let process = component(&file, "loki.process");
    let selector = component(process, "stage.match").text("selector").unwrap().to_owned();
    let terms = logql::read(&selector).unwrap();
    let unit = terms.labels.iter().find(|(label, ..)| label == "unit").unwrap();
    let unit = Regex::new(&format!("^({})$", unit.2)).unwrap();
    assert!(unit.is_match("t3-dispatch.service") && unit.is_match("t3-trace.service"));
    assert!(!unit.is_match("t3-serve@ann.service"), "user output is not a record");
    let begin = Regex::new(&terms.contains[0]).unwrap();
    for line in ["ws close user=ann", "ws open user=ann", "ws burst n=5 users=3", "ws attempts n=2 late=1"] {
        assert!(begin.is_match(line), "{line}");
    }
    assert!(!begin.is_match("could not write ws close user=ann"));
}

/// Labels of a journal entry after relabelling.
fn labels(rules: &[Rule], identifier: &str, unit: &str) -> BTreeMap<String, String> {
    let fields = BTreeMap::from([
        ("__journal__systemd_unit", unit),
        ("__journal_syslog_identifier", identifier),
        ("__journal_t3_user", "ann"),
    ]);
    let mut labels = BTreeMap::new();
    for rule in rules {
        let source = rule.source.iter().map(|name| fields[name.as_str()]).collect::<Vec<_>>().join(";");
        let pattern = Regex::new(&format!("^(?:{})$", rule.regex)).unwrap();
        if let Some(found) = pattern.captures(&source) {
            let first = found.get(1).map_or("", |group| group.as_str());
            labels.insert(rule.target.clone(), rule.replacement.replace("$1", first));
        }
    }
    labels
}

struct Rule {
    source: Vec<String>,
    regex: String,
    target: String,
    replacement: String,
}

fn of_alloy() -> Vec<Rule> {
    let texts = |value: Option<&Value>| match value {
        Some(Value::List(members)) => members
            .iter()
            .map(|member| match member {
                Value::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            })
            .collect(),
        _ => Vec::new(),
    };
    let file = file();
    let relabel = component(&file, "loki.relabel");
    let rule = |rule: &Block| Rule {
        source: texts(rule.attributes.get("source_labels")),
        regex: rule.text("regex").unwrap_or("(.*)").to_owned(),
        target: rule.text("target_label").unwrap().to_owned(),
        replacement: rule.text("replacement").unwrap_or("$1").to_owned(),
    };
    relabel.all("rule").map(rule).collect()
}

fn of_promtail() -> Vec<Rule> {
    let file = queries::yaml(PROMTAIL);
    let job = &file["scrape_configs"][0];
    let mut rules = vec![Rule {
        source: Vec::new(),
        regex: "(.*)".to_owned(),
        target: "job".to_owned(),
        replacement: job["journal"]["labels"]["job"].as_str().unwrap().to_owned(),
    }];
    let text = |value: &Json, or: &str| value.as_str().unwrap_or(or).to_owned();
    rules.extend(list(&job["relabel_configs"]).iter().map(|rule| Rule {
        source: list(&rule["source_labels"]).iter().map(|name| text(name, "")).collect(),
        regex: text(&rule["regex"], "(.*)"),
        target: text(&rule["target_label"], ""),
        replacement: text(&rule["replacement"], "$1"),
    }));
    rules
}

#[test]
fn both_shippers_create_the_streams_of_the_queries() {
    for (shipper, rules) in [("alloy", of_alloy()), ("promtail", of_promtail())] {
        let dispatch = labels(&rules, "t3-dispatch", "t3-dispatch.service");
        assert_eq!(dispatch["job"], "devvm-journal", "{shipper}");
        assert_eq!(dispatch["unit"], "t3-dispatch.service", "{shipper}");
        assert_eq!(dispatch["identifier"], "t3-dispatch", "{shipper}");
        let bash = labels(&rules, "some-tool-of-a-user", "user@1000.service");
        assert!(!bash.contains_key("identifier"), "{shipper}: one stream per program");
        assert_eq!(labels(&rules, "sshd", "ssh.service")["job"], "sshd-devvm", "{shipper}");
        let known: BTreeSet<_> = rules.iter().map(|rule| rule.target.as_str()).collect();
        assert!(known.iter().all(|label| LABELS.contains(label)), "{shipper}: {known:?}");
    }
}

/// `t3-trace --from loki` (t3-trace/cli/src/store).
#[test]
fn the_store_of_records_selects_the_streams_of_both_shippers() {
    let wanted = [
        Want::all(Kind::Close),
        Want::Unit("t3-probe.service"),
        Want::Systemd(vec!["t3-serve@ann.service".to_owned()]),
    ];
    let sent = selector::queries(&selector::Selector::default(), &["devvm".to_owned()], &wanted);
    let units = [&["t3-dispatch.service", "t3-trace.service"][..], &["t3-probe.service"], &["init.scope"]];
    assert_eq!(sent.len(), units.len());
    assert!(queries::read("deploy/alloy/devvm.alloy").contains("= {host = \"devvm\"}"));
    let host = queries::yaml(PROMTAIL)["scrape_configs"][0]["journal"]["labels"]["host"].clone();
    assert_eq!(host.as_str(), Some("devvm"));
    for (query, units) in sent.iter().zip(units) {
        let terms = logql::read(query).unwrap();
        for (rules, unit) in
            [of_alloy(), of_promtail()].iter().flat_map(|rules| units.iter().map(move |unit| (rules, unit)))
        {
            let mut labels = labels(rules, "x", unit);
            labels.insert("host".to_owned(), "devvm".to_owned());
            for (name, operator, value) in &terms.labels {
                let value = if operator == "=~" {
                    format!("^(?:{value})$")
                } else {
                    format!("^{}$", value.replace('.', "[.]"))
                };
                assert!(Regex::new(&value).unwrap().is_match(&labels[name]), "{query}: {name} of {unit}");
            }
        }
    }
}

#[test]
fn both_shippers_units_may_read_the_complete_journal() {
    let alloy = Unit::read("deploy/alloy/alloy.service.d.conf");
    let groups: BTreeSet<_> = alloy.one("SupplementaryGroups").split(' ').collect();
    assert_eq!(groups, BTreeSet::from(["adm", "systemd-journal"]));
    assert_eq!(Unit::read("deploy/promtail/devvm-promtail.service").one("User"), "root");
}

#[test]
fn alloy_sets_the_job_label_after_relabelling() {
    let file = file();
    let journal = component(&file, "loki.source.journal");
    let Some(Value::Map(labels)) = journal.attributes.get("labels") else { panic!("labels") };
    assert!(!labels.contains_key("job"), "Alloy overwrites it with the component's name");
    assert_eq!(labels.keys().collect::<Vec<_>>(), ["host"]);
}

#[test]
fn promtail_has_only_known_settings() {
    let may: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("", &["server", "positions", "clients", "scrape_configs"][..]),
        ("server", &["http_listen_port", "grpc_listen_port", "log_level"]),
        ("positions", &["filename"]),
        ("clients", &["url", "basic_auth", "tls_config", "tenant_id"]),
        ("scrape_configs", &["job_name", "journal", "relabel_configs", "pipeline_stages"]),
        ("journal", &["max_age", "json", "labels", "path"]),
        ("labels", &["host", "job"]),
        ("relabel_configs", &["source_labels", "regex", "target_label", "replacement", "action"]),
    ]);
    fn walk(at: &str, value: &Json, may: &BTreeMap<&str, &[&str]>) {
        match value {
            Json::Object(map) => {
                let known = may.get(at).unwrap_or_else(|| panic!("{at} has no parts"));
                for (key, value) in map {
                    assert!(known.contains(&key.as_str()), "{at} has no {key}");
                    walk(key, value, may);
                }
            }
            Json::Array(members) => members.iter().for_each(|member| walk(at, member, may)),
            _ => {}
        }
    }
    walk("", &queries::yaml(PROMTAIL), &may);
    let unit = queries::read("deploy/promtail/devvm-promtail.service");
    assert!(unit.contains("-config.file=/etc/promtail/config.yml"), "{unit}");
    assert!(unit.contains("User=root"), "another user would need two groups to read the journal");
}
