//! Queries use only keys, values, metrics and labels of the programs.

use std::collections::BTreeSet;

use regex_lite::Regex;

use crate::{
    known,
    logql::{self, QueryTerms},
    queries::{self, Query},
};

/// Labels of the shipped streams: few, and none with a user.
const STREAM: [&str; 4] = ["job", "unit", "host", "identifier"];
/// Units in queries.
const UNITS: [&str; 3] = ["t3-dispatch.service", "t3-trace.service", "t3-probe.service"];
/// Labels of other streams, set by a cluster's own shipper.
const OTHERS: [&str; 3] = ["namespace", "app", "container"];
/// Keys of Traefik's JSON access log, as LogQL names them.
const TRAEFIK: [&str; 9] = [
    "RequestPath",
    "RequestHost",
    "ClientHost",
    "DownstreamStatus",
    "Duration",
    "StartUTC",
    "RouterName",
    "ServiceURL",
    "request_Cf_Ray",
];
/// Labels that Prometheus adds.
const SCRAPED: [&str; 2] = ["job", "instance"];

fn of(language: &str) -> Vec<Query> {
    queries::all().into_iter().filter(|query| query.language == language).collect()
}

/// Whether each alternative of a regular expression, or the value itself, is one of `words`.
fn among(operator: &str, value: &str, words: &[&str]) -> bool {
    let free = value.is_empty() || value == ".*" || value == ".+";
    if words.is_empty() || free {
        return true;
    }
    let parts: Vec<_> = if operator.ends_with('~') { value.split('|').collect() } else { vec![value] };
    parts.iter().all(|part| {
        let pattern = Regex::new(&format!("^({part})$"));
        let matches = |word: &&str| pattern.as_ref().is_ok_and(|pattern| pattern.is_match(word));
        if operator.ends_with('~') { words.iter().any(matches) } else { words.contains(part) }
    })
}

fn reads_our_streams(terms: &QueryTerms) -> bool {
    !terms.labels.iter().any(|(label, ..)| OTHERS.contains(&label.as_str()))
}

fn check(query: &Query, terms: &QueryTerms) {
    let Query { place, text, .. } = query;
    let mut fields: BTreeSet<&str> = if !reads_our_streams(terms) {
        TRAEFIK.into_iter().collect()
    } else {
        for (label, _, value) in &terms.labels {
            assert!(STREAM.contains(&label.as_str()), "{place}: {label} is not a stream label: {text}");
            if label == "unit" {
                let unit = Regex::new(&format!("^({value})$")).unwrap();
                let serve = value.starts_with("t3-serve@");
                assert!(serve || UNITS.iter().any(|name| unit.is_match(name)), "{place}: {value}");
            }
        }
        known::keys(&terms.contains).iter().map(|key| key.name).collect()
    };
    let stream = STREAM.iter().chain(&OTHERS).copied();
    fields.extend(stream.filter(|label| *label != "identifier"));
    fields.extend(terms.made.iter().map(String::as_str));
    for field in terms.used.iter().chain(terms.compared.iter().map(|(field, ..)| field)) {
        assert!(fields.contains(field.as_str()), "{place}: nothing writes {field}: {text}");
    }
    for (field, operator, value) in &terms.compared {
        let words = known::words(field);
        assert!(among(operator, value, &words), "{place}: {field} is never {value}: {text}");
    }
}

#[test]
fn every_logql_query_uses_keys_of_records() {
    let all = of("logql");
    for query in &all {
        let terms = logql::read(&query.text).unwrap_or_else(|error| panic!("{}: {error}", query.place));
        check(query, &terms);
    }
    for name in [queries::DASHBOARD, "deploy/loki/t3.rules.yml", "README.md", "docs/RECORD.md"] {
        assert!(all.iter().any(|query| query.place.starts_with(name)), "{name} has no query");
    }
}

#[test]
#[should_panic(expected = "nothing writes psi_disk")]
fn an_unknown_key_is_found() {
    let text = r#"{job="devvm-journal"} |= "ws close" | logfmt | psi_disk > 20"#.to_owned();
    let terms = logql::read(&text).unwrap();
    check(&Query { language: "logql", place: "here".to_owned(), text }, &terms);
}

#[test]
#[should_panic(expected = "verdict is never serve_oom|serve_eaten")]
fn an_unknown_value_is_found() {
    let text =
        r#"{job="devvm-journal"} |= "ws close" | logfmt | verdict=~"serve_oom|serve_eaten""#.to_owned();
    let terms = logql::read(&text).unwrap();
    check(&Query { language: "logql", place: "here".to_owned(), text }, &terms);
}

/// Error of a query for Prometheus, if it has one.
fn wrong(query: &str) -> Option<String> {
    let known = known::metrics();
    let selector =
        Regex::new(r"\b(up|t3_dispatch_\w+|t3_trace_\w+|t3probe_\w+|process_\w+)\b(\{[^}]*\})?").unwrap();
    let matcher = Regex::new(r#"(\w+)(=~|!~|!=|=)"([^"]*)""#).unwrap();
    let grouping = Regex::new(r"\bby \(([^)]*)\)").unwrap();
    let mut labels: BTreeSet<String> = SCRAPED.iter().map(ToString::to_string).collect();
    let mut found = false;
    for series in selector.captures_iter(query) {
        found = true;
        let Some(of_it) = known.get(&series[1]) else {
            return Some(format!("unknown series {}", &series[1]));
        };
        labels.extend(of_it.keys().cloned());
        for compared in matcher.captures_iter(series.get(2).map_or("", |matchers| matchers.as_str())) {
            let label = &compared[1];
            let Some(values) = of_it.get(label) else {
                if SCRAPED.contains(&label) {
                    continue;
                }
                return Some(format!("{} has no label {label}", &series[1]));
            };
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            if !among(&compared[2], &compared[3], &values) {
                return Some(format!("{label} of {} is never {}", &series[1], &compared[3]));
            }
        }
    }
    let terms = grouping.captures_iter(query).flat_map(|by| {
        let names = by[1].split(',').map(|name| name.trim().to_owned());
        names.filter(|name| !name.is_empty()).collect::<Vec<_>>()
    });
    let unknown = terms.into_iter().find(|label| !labels.contains(label));
    unknown
        .map(|label| format!("nothing has the label {label}"))
        .or_else(|| (!found).then(|| "it uses no metric".to_owned()))
}

#[test]
fn every_promql_query_uses_existing_series() {
    let all = of("promql");
    for query in &all {
        assert_eq!(wrong(&query.text), None, "{}: {}", query.place, query.text);
    }
    for name in [queries::DASHBOARD, "deploy/prometheus/t3-dispatch", "deploy/prometheus/t3-probe"] {
        assert!(all.iter().any(|query| query.place.starts_with(name)), "{name} has no query");
    }
}

#[test]
fn an_unknown_series_is_found() {
    for (query, why) in [
        ("t3_dispatch_openings_total", "unknown series"),
        (r#"t3_dispatch_sessions{state="gone"}"#, "is never gone"),
        (r#"t3_dispatch_sessions{user="ann"}"#, "has no label user"),
        ("t3_trace_udp_closes_total", "unknown series"),
        (r#"t3_trace_tcp_closes_total{verdict="eaten"}"#, "is never eaten"),
        ("sum by (user) (t3_dispatch_sessions)", "nothing has the label user"),
        (r#"t3probe_connected{leg=~"internal|lunar"}"#, "is never"),
        ("1 > 0", "no metric"),
    ] {
        assert!(wrong(query).is_some_and(|found| found.contains(why)), "{query}: {:?}", wrong(query));
    }
}
