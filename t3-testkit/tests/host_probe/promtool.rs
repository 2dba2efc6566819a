//! promtool: reads a metrics page, and evaluates alert rules over its series.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

/// The deployed alert rules.
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus/t3-probe.rules.yml");

/// Checks that promtool reports neither errors nor lint on the page.
pub fn accepts(page: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: install the package prometheus");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let output_text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output_text}\n{page}");
    assert_eq!(output_text.trim(), "", "{page}");
}

/// Checks that the alerts fire on series of this page exactly when their values require it.
pub fn alerts_fire(page: &str) {
    let series = |name: &str| -> BTreeSet<String> {
        let lines = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    let connected = series("t3probe_connected");
    let disconnects = series("t3probe_disconnects_total");
    assert_eq!(connected.len(), 3);
    assert!(disconnects.len() >= 8, "{disconnects:?}");
    let job = |series: &str| series.replacen('{', "{job=\"t3-probe\",", 1);
    let down = connected.iter().find(|series| series.contains("internal")).unwrap();
    let burst = disconnects.iter().find(|series| series.contains("io_error")).unwrap();
    let mut input = String::new();
    for name in &connected {
        let values = if name == down { "1x10 0x20" } else { "1x40" };
        let _ = writeln!(input, "      - {{series: '{}', values: '{values}'}}", job(name));
    }
    for name in &disconnects {
        let values = if name == burst { "0x15 1+1x7 8x20" } else { "5x40" };
        let _ = writeln!(input, "      - {{series: '{}', values: '{values}'}}", job(name));
    }
    let labels = |series: &str| {
        let inside = series.split_once('{').unwrap().1.trim_end_matches('}');
        let pairs = inside.split(',').map(|pair| {
            let (key, value) = pair.split_once('=').unwrap();
            format!("{key}: {value}")
        });
        pairs.collect::<Vec<_>>().join(", ")
    };
    let file: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(RULES).unwrap()).unwrap();
    let annotations = |alert: &str| {
        let rules = file["groups"][0]["rules"].as_array().unwrap();
        let rule = rules.iter().find(|rule| rule["alert"] == alert).unwrap();
        serde_json::to_string(&rule["annotations"]).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let rules = Path::new(RULES).canonicalize().expect("the rules are part of the project");
    let test = format!(
        "rule_files: ['{}']\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n{input}    alert_rule_test:\n\
         \x20     - {{eval_time: 10m, alertname: T3ProbeLegDown, exp_alerts: []}}\n\
         \x20     - {{eval_time: 10m, alertname: T3ProbeDropBurst, exp_alerts: []}}\n\
         \x20     - eval_time: 20m\n        alertname: T3ProbeLegDown\n        exp_alerts:\n\
         \x20         - exp_labels: {{severity: warning, job: t3-probe, {}}}\n\
         \x20           exp_annotations: {}\n\
         \x20     - eval_time: 25m\n        alertname: T3ProbeDropBurst\n        exp_alerts:\n\
         \x20         - exp_labels: {{severity: warning, job: t3-probe, {}}}\n\
         \x20           exp_annotations: {}\n",
        rules.display(),
        labels(down),
        annotations("T3ProbeLegDown"),
        labels(burst),
        annotations("T3ProbeDropBurst"),
    );
    let file = dir.path().join("test.yml");
    fs::write(&file, &test).unwrap();
    let output = Command::new("promtool").args(["test", "rules"]).arg(&file).output().unwrap();
    let output_text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output_text}\n{test}");
}
