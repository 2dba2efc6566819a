//! Alert rules evaluated by promtool: they fire when they should and only then. `host_probe` tests
//! some of t3-probe with its own metrics page.

use std::{fmt::Write as _, fs, process::Command};

use crate::queries;

/// Files of rules, each with the labels that Prometheus adds to each series and its cases.
const FILES: [(&str, &str, &[Case]); 3] = [
    ("deploy/prometheus/t3-dispatch.rules.yml", r#"job="t3-dispatch",instance="devvm:9780""#, &CASES),
    ("deploy/prometheus/t3-probe.rules.yml", r#"job="t3-probe",instance="prober:9108""#, &PROBE_CASES),
    ("deploy/prometheus/t3-trace.rules.yml", r#"job="node",instance="devvm:9100""#, &TRACE_CASES),
];

/// An alert, series with one value per minute for which it fires, a minute before it fires, and one
/// at which it does.
struct Case {
    alert: &'static str,
    series: &'static [(&'static str, &'static str)],
    quiet: u32,
    fires: u32,
}

const CASES: [Case; 22] = [
    Case { alert: "T3DispatchDown", series: &[("up{}", "1x10 0x20")], quiet: 12, fires: 14 },
    Case {
        alert: "T3TraceDown",
        series: &[("t3_dispatch_trace_connected{}", "1x10 0x20")],
        quiet: 15,
        fires: 17,
    },
    Case {
        alert: "T3EvidenceMissing",
        series: &[
            (r#"t3_dispatch_evidence_total{kernel="tracepoint"}"#, "0+10x40"),
            (r#"t3_dispatch_evidence_total{kernel="off"}"#, "0x10 0+10x30"),
        ],
        quiet: 10,
        fires: 25,
    },
    Case {
        alert: "T3TraceLosesEvents",
        series: &[("t3_dispatch_kernel_events_lost_total{}", "0x10 3x20")],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3RecordsLost",
        series: &[(r#"t3_dispatch_journal_entries_total{outcome="lost"}"#, "0x10 1x20")],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3RecordsMissing",
        series: &[
            ("t3_dispatch_records_missing_total{}", "0x10 2x20"),
            (r#"t3_dispatch_journal_entries_total{outcome="lost"}"#, "0x30"),
        ],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3RecordsNotKept",
        series: &[
            ("t3_dispatch_records_lost_total{}", "0x10 1x20"),
            // Written again: missing, but not lost.
            ("t3_dispatch_records_missing_total{}", "0+3x30"),
            ("t3_dispatch_records_rewritten_total{}", "0+3x30"),
        ],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3RecordsWaiting",
        series: &[("t3_dispatch_journal_entries_waiting{}", "100x10 101x20")],
        quiet: 12,
        fires: 14,
    },
    Case {
        alert: "T3RecordsOwed",
        series: &[(r#"t3_dispatch_sessions{state="closing"}"#, "0 1 0 1 0 1x40")],
        quiet: 14,
        fires: 25,
    },
    Case {
        alert: "T3SessionsNotResumed",
        series: &[
            ("t3_dispatch_sessions_not_resumed_total{}", "0x10 2x20"),
            ("t3_dispatch_sessions_resumed_total{}", "0x5 9x25"),
        ],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3DropBurst",
        series: &[
            (r#"t3_dispatch_closes_total{verdict="edge_burst",cause="downstream_closed"}"#, "0x10 5x20"),
            (r#"t3_dispatch_closes_total{verdict="client_left",cause="downstream_closed"}"#, "0+3x30"),
        ],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3ServeOom",
        series: &[
            (r#"t3_dispatch_closes_total{verdict="serve_oom",cause="upstream_closed"}"#, "0x10 1x20"),
            (r#"t3_dispatch_closes_total{verdict="serve_killed",cause="upstream_closed"}"#, "0+3x30"),
        ],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3ServeStalled",
        series: &[(r#"t3_dispatch_closes_total{verdict="serve_stalled",cause="graceful"}"#, "0x5 2x5 6x20")],
        quiet: 10,
        fires: 13,
    },
    Case {
        alert: "T3HeartbeatsUnknown",
        series: &[
            ("t3_dispatch_sessions_without_heartbeat{}", "5x10 6x30"),
            (r#"t3_dispatch_sessions{state="open"}"#, "10x40"),
        ],
        quiet: 25,
        fires: 27,
    },
    Case {
        alert: "T3VerdictUnknown",
        series: &[(r#"t3_dispatch_closes_total{verdict="unknown",cause="graceful"}"#, "0x10 1x20")],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3DispatchLate",
        series: &[("t3_dispatch_event_loop_lag_worst_seconds{}", "0.25x10 0.3x20")],
        quiet: 11,
        fires: 13,
    },
    Case {
        alert: "T3ForeignListener",
        series: &[
            (r#"t3_dispatch_refused_total{reason="foreign_listener"}"#, "0x10 1x20"),
            (r#"t3_dispatch_refused_total{reason="peer"}"#, "0+1x30"),
        ],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3PairingFails",
        series: &[
            (r#"t3_dispatch_pairings_total{outcome="mint_failed"}"#, "0x10 1x20"),
            (r#"t3_dispatch_pairings_total{outcome="paired"}"#, "0+1x30"),
            // One browser in a loop.
            (r#"t3_dispatch_pairings_total{outcome="loop_stopped"}"#, "0+1x30"),
        ],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3RoutingTableBroken",
        series: &[
            (r#"t3_dispatch_table_reloads_total{result="failed"}"#, "0x10 1x20"),
            (r#"t3_dispatch_table_reloads_total{result="ok"}"#, "0+1x30"),
        ],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3DispatchLimit",
        series: &[
            (r#"t3_dispatch_refused_total{reason="user_sessions"}"#, "0x10 1x20"),
            // One client, not the service.
            (r#"t3_dispatch_refused_total{reason="address_connections"}"#, "0+1x30"),
        ],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3DeliveryTimeouts",
        series: &[("t3_dispatch_delivery_timeouts_total{}", "0x5 2x5 4x20")],
        quiet: 10,
        fires: 13,
    },
    Case {
        alert: "T3DispatchDescriptors",
        series: &[("process_open_fds{}", "700x10 750x20"), ("process_max_fds{}", "1000x30")],
        quiet: 15,
        fires: 17,
    },
];

const PROBE_CASES: [Case; 4] = [
    Case { alert: "T3ProbeDown", series: &[("up{}", "1x10 0x20")], quiet: 15, fires: 17 },
    Case {
        alert: "T3EgressDown",
        series: &[
            (r#"t3probe_connected{leg="cloudflare"}"#, "1x5 0x25"),
            // Until then the host of Traefik is down, too.
            (r#"t3probe_connected{leg="internal"}"#, "1x5 0x5 1x20"),
        ],
        quiet: 12,
        fires: 15,
    },
    Case {
        alert: "T3ProbeLegDown",
        series: &[(r#"t3probe_connected{leg="internal"}"#, "1x10 0x20")],
        quiet: 15,
        fires: 17,
    },
    Case {
        alert: "T3ProbeDropBurst",
        series: &[(r#"t3probe_disconnects_total{leg="internal",reason="io_error"}"#, "0x10 0+1x20")],
        quiet: 14,
        fires: 25,
    },
];

const TRACE_CASES: [Case; 6] = [
    // It stalls, or is stopped and removes the file.
    Case {
        alert: "T3TraceMetricsStale",
        series: &[("t3_trace_metrics_time_seconds{}", "0+60x10 600x20")],
        quiet: 12,
        fires: 15,
    },
    Case {
        alert: "T3TraceMetricsStale",
        series: &[("t3_trace_metrics_time_seconds{}", "0+60x10 stale")],
        quiet: 12,
        fires: 15,
    },
    Case {
        alert: "T3TraceNoEvidence",
        series: &[("t3_trace_kernel_evidence{}", "1x10 0x20")],
        quiet: 15,
        fires: 17,
    },
    Case {
        alert: "T3DirectRecordsMissing",
        series: &[
            ("t3_trace_tcp_over_budget_total{}", "0x10 5x20"),
            ("t3_trace_tcp_lost_total{}", "0x30"),
            // Those are meant to have none.
            ("t3_trace_tcp_short_total{}", "0+9x30"),
        ],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3DirectRecordsMissing",
        series: &[("t3_trace_tcp_lost_total{}", "0x10 5x20"), ("t3_trace_tcp_over_budget_total{}", "0x30")],
        quiet: 10,
        fires: 12,
    },
    Case {
        alert: "T3DirectOom",
        series: &[
            (r#"t3_trace_tcp_closes_total{port="8080",verdict="serve_oom"}"#, "0x10 1x20"),
            (r#"t3_trace_tcp_closes_total{port="8080",verdict="client_left"}"#, "0+3x30"),
        ],
        quiet: 10,
        fires: 12,
    },
];

fn promtool(arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new("promtool").args(arguments).output().expect("promtool: install the package prometheus");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Test file for promtool, one test per case.
fn tests(file: &str, scraped: &str, cases: &[Case]) -> String {
    let alerts = queries::alerts(file);
    // All files of a site together: an alert that two of them have would fire twice.
    let rules: Vec<_> = FILES.iter().map(|(name, ..)| queries::file(name).canonicalize().unwrap()).collect();
    let mut text = format!("rule_files: {rules:?}\nevaluation_interval: 1m\ntests:\n");
    for case in cases {
        let alert = alerts.iter().find(|alert| alert["alert"] == case.alert).expect(case.alert);
        text.push_str("  - interval: 1m\n    input_series:\n");
        for (series, values) in case.series {
            let (name, labels) = series.split_once('{').unwrap();
            let comma = if labels == "}" { "" } else { "," };
            let _ =
                writeln!(text, "      - {{series: '{name}{{{scraped}{comma}{labels}', values: '{values}'}}");
        }
        // A sum by job and instance has only those labels.
        let kept = if alert["expr"].as_str().unwrap().contains("sum by") { "" } else { case.series[0].0 };
        let labels = kept.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
        let labels = format!("{scraped},{labels}").replace('=', ": ").trim_end_matches(',').to_owned();
        let mut annotations = serde_json::to_string(&alert["annotations"]).unwrap();
        for name in ["reason", "outcome"] {
            let value =
                labels.split_once(&format!("{name}: ")).map_or("", |(_, value)| value.trim_matches('"'));
            annotations = annotations.replace(&format!("{{{{ $labels.{name} }}}}"), value);
        }
        let _ = write!(
            text,
            "    alert_rule_test:\n      - {{eval_time: {}m, alertname: {name}, exp_alerts: []}}\n\
             \x20     - eval_time: {}m\n        alertname: {name}\n        exp_alerts:\n\
             \x20         - exp_labels: {{severity: {}, {labels}}}\n            exp_annotations: {annotations}\n",
            case.quiet,
            case.fires,
            alert["labels"]["severity"].as_str().unwrap(),
            name = case.alert,
        );
    }
    text
}

#[test]
fn promtool_accepts_all_rules() {
    for (name, language) in queries::RULES {
        if language == "promql" {
            let (ok, output) = promtool(&["check", "rules", queries::file(name).to_str().unwrap()]);
            assert!(ok, "{output}");
        }
    }
}

#[test]
fn each_alert_fires_on_its_series_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let test = dir.path().join("test.yml");
    for (file, scraped, cases) in FILES {
        for alert in &queries::alerts(file) {
            assert!(cases.iter().any(|case| alert["alert"] == case.alert), "no case for {}", alert["alert"]);
        }
        fs::write(&test, tests(file, scraped, cases)).unwrap();
        let (ok, output) = promtool(&["test", "rules", test.to_str().unwrap()]);
        assert!(ok, "{output}\n{}", tests(file, scraped, cases));
    }
    // promtool fails if an alert does not fire.
    let never = [Case { alert: "T3DispatchDown", series: &[("up{}", "1x30")], quiet: 12, fires: 14 }];
    let (file, scraped, _) = FILES[0];
    fs::write(&test, tests(file, scraped, &never)).unwrap();
    assert!(!promtool(&["test", "rules", test.to_str().unwrap()]).0);
    // It also fails if an alert fires twice, with the same labels or others.
    let text = tests(file, scraped, &CASES[..1]);
    for labels in ["severity: critical", "severity: warning"] {
        let copy = dir.path().join("copy.yml");
        let rule = "alert: T3DispatchDown, expr: 'up{job=\"t3-dispatch\"} == 0'";
        fs::write(&copy, format!("groups: [{{name: copy, rules: [{{{rule}, labels: {{{labels}}}}}]}}]\n"))
            .unwrap();
        let twice = text.replacen("rule_files: [", &format!("rule_files: [{copy:?}, "), 1);
        fs::write(&test, twice).unwrap();
        assert!(!promtool(&["test", "rules", test.to_str().unwrap()]).0, "{labels}");
    }
}
