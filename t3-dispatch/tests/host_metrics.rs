//! Metrics page and queries of docs/METRICS.md, checked with Prometheus. Needs Debian's package
//! `prometheus`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod program;

use std::{
    fmt::Write as _,
    fs,
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use program::{GOOD, dispatch, table, wait_for};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Child process that is killed on drop.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts t3-dispatch and sends one request, so that not all values are 0; returns the metrics
/// address.
fn with_metrics() -> (Killed, SocketAddr) {
    let table = table(GOOD);
    let options = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
    let mut child = dispatch(table.path(), &options).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let child = Killed(child);
    let line = wait_for(&mut log, "metrics on http://");
    let metrics = line.trim().rsplit("http://").next().unwrap().strip_suffix("/metrics").unwrap();
    let metrics = metrics.parse().unwrap();
    let line = wait_for(&mut log, "listening on ");
    get(line.trim().rsplit("listening on ").next().unwrap().parse().unwrap(), "/healthz");
    (child, metrics)
}

/// Returns the body.
fn get(address: SocketAddr, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool is there: Debian's package prometheus");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn queries() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md");
    let page = fs::read_to_string(page).unwrap();
    let of = |line: &str| line.strip_prefix("    ").map(str::to_owned);
    page.lines()
        .filter_map(of)
        .filter(|line| line.contains("t3_dispatch_") || line.contains("process_"))
        .collect()
}

#[test]
fn promtool_accepts_the_page() {
    let (_dispatch, metrics) = with_metrics();
    let page = get(metrics, "/metrics").unwrap();
    let output = promtool(&["check", "metrics"], &page);
    let output_text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && output_text.is_empty(), "{output_text}");
    // It rejects an invalid page.
    let worse = page.replace("t3_dispatch_opens_total", "t3_dispatch_opens");
    assert!(!promtool(&["check", "metrics"], &worse).status.success());
}

#[test]
fn promtool_accepts_every_query_of_the_documentation() {
    let queries = queries();
    assert!(queries.len() > 15, "{}", queries.len());
    let mut rules = String::from("groups:\n- name: docs\n  rules:\n");
    for (n, query) in queries.iter().enumerate() {
        write!(rules, "  - record: query:{n}\n    expr: |\n      {query}\n").unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &rules).unwrap();
    let output = promtool(&["check", "rules", file.path().to_str().unwrap()], "");
    assert!(output.status.success(), "{}\n{rules}", String::from_utf8_lossy(&output.stderr));
}

/// The alert about unrecognised heartbeats and the one about stalls, over series of the page.
#[test]
fn promtool_fires_the_alerts_about_heartbeats() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/t3-dispatch.rules.yml");
    let text = fs::read_to_string(&rules).unwrap();
    let annotations = |alert: &str| {
        let (_, rule) = text.split_once(&format!("- alert: {alert}\n")).unwrap();
        let of = |key: &str| {
            let line = rule.lines().find_map(|line| line.trim().strip_prefix(key));
            serde_json::to_string(line.unwrap()).unwrap()
        };
        let [summary, description, url] = ["summary: ", "description: ", "runbook_url: "].map(of);
        format!("{{summary: {summary}, description: {description}, runbook_url: {url}}}")
    };
    let labels = r#"job="t3-dispatch",instance="devvm""#;
    // Four of ten sessions without heartbeats for 20 minutes, then eight; three stalls at once, of
    // compressed sessions or not: the counter does not tell.
    let series = [
        (format!("t3_dispatch_sessions{{{labels},state=\"open\"}}"), "10x60"),
        (format!("t3_dispatch_sessions{{{labels},state=\"closing\"}}"), "0x60"),
        (format!("t3_dispatch_sessions_without_heartbeat{{{labels}}}"), "4x20 8x40"),
        (
            format!("t3_dispatch_closes_total{{{labels},verdict=\"serve_stalled\",cause=\"graceful\"}}"),
            "0x40 3x20",
        ),
        (
            format!("t3_dispatch_closes_total{{{labels},verdict=\"client_closed\",cause=\"graceful\"}}"),
            "0+9x60",
        ),
    ];
    let mut test = format!(
        "rule_files: ['{}']\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n",
        rules.canonicalize().unwrap().display()
    );
    for (name, values) in series {
        writeln!(test, "      - {{series: '{name}', values: '{values}'}}").unwrap();
    }
    test += "    alert_rule_test:\n";
    let heartbeats = "severity: info, job: t3-dispatch, instance: devvm";
    let stalled = "severity: warning, job: t3-dispatch, instance: devvm";
    for (minute, alert, labels) in [
        (20, "T3HeartbeatsUnknown", None),
        (30, "T3HeartbeatsUnknown", None),
        (40, "T3HeartbeatsUnknown", Some(heartbeats)),
        (39, "T3ServeStalled", None),
        (45, "T3ServeStalled", Some(stalled)),
        (59, "T3ServeStalled", None),
    ] {
        let expected = labels.map_or("[]".to_owned(), |labels| {
            format!("[{{exp_labels: {{{labels}}}, exp_annotations: {}}}]", annotations(alert))
        });
        writeln!(test, "      - {{eval_time: {minute}m, alertname: {alert}, exp_alerts: {expected}}}")
            .unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &test).unwrap();
    let output = promtool(&["test", "rules", file.path().to_str().unwrap()], "");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{test}");
}

#[test]
fn prometheus_scrapes_the_page_and_evaluates_every_query() {
    let (_dispatch, metrics) = with_metrics();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prometheus.yml");
    let scrape = format!(
        "scrape_configs:\n- job_name: t3-dispatch\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  static_configs: [{{targets: [\"{metrics}\"]}}]\n"
    );
    fs::write(&config, scrape).unwrap();
    // A port that was free.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _prometheus = Killed(
        Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is there: Debian's package prometheus"),
    );
    let query = |text: &str| -> Option<serde_json::Value> {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        serde_json::from_str(&get(address, &format!("/api/v1/query?query={encoded}"))?).ok()
    };
    let value =
        |answer: &serde_json::Value| answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned);
    let deadline = Instant::now() + TIMEOUT;
    // Two scrapes, so that rates have data.
    let scraped = "count_over_time(t3_dispatch_build_info[1m]) >= 3";
    while query(scraped).as_ref().and_then(value).is_none() {
        let targets = get(address, "/api/v1/targets").unwrap_or_default();
        assert!(Instant::now() < deadline, "prometheus did not scrape: {targets}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(value(&query("up").unwrap()).as_deref(), Some("1"));
    let pages = r#"t3_dispatch_http_responses_total{by="dispatch",class="2xx"}"#;
    assert_eq!(value(&query(pages).unwrap()).as_deref(), Some("1"));
    assert_eq!(value(&query("t3_dispatch_table_logins").unwrap()).as_deref(), Some("1"));
    for text in queries() {
        let answer = query(&text).unwrap();
        assert_eq!(answer["status"], "success", "{text}: {answer}");
    }
}
