//! Every query, parsed by the grammar of its language.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use t3_testkit::harness::npm_peer;

use crate::queries;

/// Error of each query; null if it is valid.
fn parse(queries: &[Value]) -> Vec<Value> {
    let folder = npm_peer::installed("query-grammars").expect("npm installs the grammars");
    let mut node = Command::new("node")
        .arg("check.mjs")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node: install the package nodejs");
    node.stdin.take().unwrap().write_all(json!(queries).to_string().as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_query_of_dashboards_rules_and_pages_is_accepted_by_its_grammar() {
    let all = queries::all();
    let input: Vec<_> =
        all.iter().map(|query| json!({"language": query.language, "text": query.text})).collect();
    let found = parse(&input);
    assert_eq!(found.len(), all.len());
    for (query, wrong) in all.iter().zip(found) {
        assert_eq!(wrong, Value::Null, "{}: {}", query.place, query.text);
    }
    for language in ["logql", "promql"] {
        assert!(all.iter().filter(|query| query.language == language).count() > 20, "{language}");
    }
}

#[test]
fn the_grammars_reject_invalid_queries() {
    let wrong = [
        ("logql", r#"{job="devvm-journal"} |= "ws close" | logfmt | psi_io > > 20"#),
        ("logql", r#"sum by (verdict) (count_over_time({job="devvm-journal"} | logfmt [5m])"#),
        ("logql", "{job=devvm-journal}"),
        ("promql", "sum(rate(t3_dispatch_opens_total[5m])"),
        ("promql", "t3_dispatch_sessions{state=open}"),
    ];
    let input: Vec<_> =
        wrong.iter().map(|(language, text)| json!({"language": language, "text": text})).collect();
    for (found, query) in parse(&input).iter().zip(wrong) {
        assert!(found.is_string(), "{query:?}");
    }
}
