//! All queries of dashboards, alert rules and documentation, and all documented commands. Also used
//! by `host_deploy`.

use std::{fs, path::PathBuf};

use serde_json::Value;

/// One query and its location.
#[derive(Debug, Clone)]
pub struct Query {
    /// `logql` or `promql`.
    pub language: &'static str,
    /// File, and location in it.
    pub place: String,
    /// The query with expanded Grafana variables.
    pub text: String,
}

/// Pages with queries and commands.
pub const PAGES: [&str; 11] = [
    "README.md",
    "docs/INSTALL.md",
    "docs/RUNBOOK.md",
    "docs/EXPLAIN.md",
    "docs/VERDICTS.md",
    "docs/RECORD.md",
    "docs/METRICS.md",
    "docs/PROBE.md",
    "docs/OTLP.md",
    "docs/CONFIGURATION.md",
    "docs/PAIRING.md",
];
/// Rules for a site without Prometheus; the others can be loaded together.
pub const WITHOUT_PROMETHEUS: &str = "deploy/loki/t3-without-prometheus.rules.yml";
/// Files of rules with their languages.
pub const RULES: [(&str, &str); 5] = [
    ("deploy/loki/t3.rules.yml", "logql"),
    (WITHOUT_PROMETHEUS, "logql"),
    ("deploy/prometheus/t3-dispatch.rules.yml", "promql"),
    ("deploy/prometheus/t3-probe.rules.yml", "promql"),
    ("deploy/prometheus/t3-trace.rules.yml", "promql"),
];
/// The dashboard.
pub const DASHBOARD: &str = "deploy/grafana/t3-closes.json";
/// Begin of a link to Explore, up to the encoded JSON with the queries (Grafana 10 and later).
pub const EXPLORE: &str = "/explore?schemaVersion=1&panes=";
/// Grafana's variable for the value of a cell in a link.
const CELL: &str = "${__value.raw:percentencode}";
/// Values for Grafana's variables.
const VARIABLES: [(&str, &str); 6] = [
    ("$__rate_interval", "5m"),
    ("$__auto", "5m"),
    ("$__range", "6h"),
    ("$user", ".*"),
    ("$verdict", ".+"),
    ("$short", "120000"),
];

/// Path of a file of the project.
pub fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

pub fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap_or_else(|error| panic!("{DASHBOARD}: {error}"))
}

/// The elements of a list; empty without one.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Alerts of a file of rules.
pub fn alerts(name: &str) -> Vec<Value> {
    let rules = yaml(name);
    let groups = list(&rules["groups"]).iter();
    groups.flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

pub fn all() -> Vec<Query> {
    let mut all = dashboard_queries();
    for (name, language) in RULES {
        for alert in alerts(name) {
            let place = format!("{name}: {}", alert["alert"].as_str().unwrap());
            all.push(Query { language, place, text: alert["expr"].as_str().unwrap().to_owned() });
        }
    }
    for name in PAGES {
        for (number, line) in code_lines(&read(name)) {
            if let Some(language) = language(line) {
                let place = format!("{name}:{number}");
                all.push(Query { language, place, text: line.trim().to_owned() });
            }
        }
    }
    all
}

/// Lines of code of a page with their numbers: indented, or between fences.
fn code_lines(page: &str) -> Vec<(usize, &str)> {
    let mut is_fenced = false;
    let mut found = Vec::new();
    for (line, number) in page.lines().zip(1..) {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced {
            found.push((number, line.trim_start()));
        } else if let Some(line) = line.strip_prefix("    ") {
            found.push((number, line));
        }
    }
    found
}

/// Documented commands of a program: location and words.
pub fn commands(program: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for name in PAGES {
        for (number, line) in code_lines(&read(name)) {
            let line = line.trim_start_matches("$ ").trim_start_matches("sudo ");
            // Without the comment after two spaces and a hash, and without redirections.
            let line = line
                .split("  #")
                .next()
                .unwrap_or_default()
                .split(" > ")
                .next()
                .unwrap_or_default()
                .trim_end();
            if line.split(' ').next() == Some(program) && line.contains(' ') {
                let words = shlex::split(line).unwrap_or_else(|| panic!("{name}:{number}: {line}"));
                found.push((format!("{name}:{number}: {line}"), words));
            }
        }
    }
    found
}

fn dashboard_queries() -> Vec<Query> {
    let dashboard = dashboard();
    let mut found = Vec::new();
    for panel in list(&dashboard["panels"]) {
        for target in list(&panel["targets"]) {
            let language = match target["datasource"]["type"].as_str() {
                Some("loki") => "logql",
                Some("prometheus") => "promql",
                other => panic!("{}: a query for {other:?}", panel["title"]),
            };
            let place = format!("{DASHBOARD}: {}", panel["title"].as_str().unwrap());
            found.push(Query { language, place, text: expand(target["expr"].as_str().unwrap()) });
        }
    }
    found.extend(link_queries(&dashboard));
    for annotation in list(&dashboard["annotations"]["list"]) {
        let place = format!("{DASHBOARD}: {}", annotation["name"]);
        found.push(Query { language: "logql", place, text: expand(annotation["expr"].as_str().unwrap()) });
    }
    found
}

/// Links of the cells of a dashboard.
pub fn links(dashboard: &Value) -> Vec<&str> {
    let panels = list(&dashboard["panels"]).iter();
    let overrides = panels.flat_map(|panel| list(&panel["fieldConfig"]["overrides"]));
    let properties = overrides.flat_map(|change| list(&change["properties"]));
    let links = properties.filter(|property| property["id"] == "links");
    links.flat_map(|property| list(&property["value"])).map(|link| link["url"].as_str().unwrap()).collect()
}

/// Queries that links open in Explore.
fn link_queries(dashboard: &Value) -> Vec<Query> {
    let mut found = Vec::new();
    for panes in links(dashboard).iter().filter_map(|url| url.strip_prefix(EXPLORE)) {
        let panes: Value = serde_json::from_str(&percent_decoded(panes)).expect("JSON");
        for query in panes.as_object().unwrap().values().flat_map(|pane| list(&pane["queries"])) {
            let text = query["expr"].as_str().unwrap().replace(CELL, "k3v9q0a1b2c3d");
            let place = format!("{DASHBOARD}: link to Explore");
            found.push(Query { language: "logql", place, text: expand(&text) });
        }
    }
    found
}

/// Text with `%XX` decoded; Grafana's variables are not encoded.
fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(code, 16).unwrap());
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).unwrap()
}

fn expand(query: &str) -> String {
    let query =
        VARIABLES.iter().fold(query.to_owned(), |query, (variable, value)| query.replace(variable, value));
    assert!(!query.contains('$'), "unknown variable: {query}");
    query
}

/// Language of a line, if it is a query and not a command or record.
fn language(line: &str) -> Option<&'static str> {
    // A selector of PromQL follows the name of a metric.
    let is_stream = |at: usize| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let mut selectors = ["{job=", "{namespace=", "{unit="].iter().filter_map(|selector| line.find(selector));
    let logql = selectors.any(is_stream);
    let promql =
        ["t3_dispatch_", "t3_trace_", "t3probe_", "process_"].iter().any(|prefix| line.contains(prefix));
    match (logql, promql) {
        (true, _) => Some("logql"),
        (_, true) => Some("promql"),
        _ => None,
    }
}
