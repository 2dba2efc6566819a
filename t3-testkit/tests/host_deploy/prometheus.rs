//! A real Prometheus scrapes t3-dispatch and t3-probe, loads the rules of a site together, and
//! executes every query of the dashboard on their metrics. Needs Debian's package `prometheus` and
//! `cargo xtask build`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use t3_testkit::{
    harness::{Process, find, free_port},
    wait,
};

use crate::queries::{self, list};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Rules of a site with Prometheus.
const RULES: [&str; 3] = [
    "deploy/prometheus/t3-dispatch.rules.yml",
    "deploy/prometheus/t3-probe.rules.yml",
    "deploy/prometheus/t3-trace.rules.yml",
];
/// Metric that t3-dispatch has only while t3-trace, which compares the journal, is connected.
const OF_TRACE: &str = "t3_dispatch_records_missing_total";
/// At least so many scrapes of each program, so that rates have a value.
const SCRAPED: &str =
    "count_over_time(t3_dispatch_build_info[1m]) >= 3 and on () count_over_time(t3probe_build_info[1m]) >= 3";

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()))
}

/// Returns the body.
fn get(address: SocketAddr, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    // HTTP/1.0, so that a long body is not chunked.
    let request = format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// The programs, and a Prometheus that scrapes them once a second.
struct Site {
    _processes: Vec<Process>,
    _dir: tempfile::TempDir,
    address: SocketAddr,
}

impl Site {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [dispatch, probe, address] = [local(), local(), local()];
        let table = dir.path().join("table.json");
        fs::write(&table, r#"{"ann": {"os_user": "ann", "port": 1}}"#).unwrap();
        let mut serve = Command::new(find("t3-dispatch").unwrap());
        serve.env("T3_DISPATCH_CONFIG", "/dev/null").env("T3_DISPATCH_LOG", "stderr");
        serve.args([
            "serve",
            "--no-pairing",
            "--listen=127.0.0.1:0",
            "--trace-socket=/nonexistent/evidence.sock",
        ]);
        serve.arg(format!("--metrics-listen={dispatch}")).arg("--table").arg(&table);
        // A leg that never connects: disconnects of it are counted.
        let mut run = Command::new(find("t3-probe").unwrap());
        run.env("T3_PROBE_CONFIG", "/dev/null");
        run.args(["run", "--serve=ann=http://127.0.0.1:1", "--back-off=200ms", "--beat=500ms"]);
        run.arg(format!("--listen={probe}"));
        let config = dir.path().join("prometheus.yml");
        let rules: Vec<_> = RULES.iter().map(|name| queries::file(name).canonicalize().unwrap()).collect();
        let job = |name: &str, target: SocketAddr| {
            format!("- job_name: {name}\n  static_configs: [{{targets: ['{target}']}}]\n")
        };
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: {rules:?}\nscrape_configs:\n{}{}",
            job("t3-dispatch", dispatch),
            job("t3-probe", probe)
        );
        fs::write(&config, text).unwrap();
        let mut prometheus = Command::new("prometheus");
        prometheus.arg(format!("--config.file={}", config.display()));
        prometheus.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        prometheus.arg(format!("--web.listen-address={address}"));
        let started = [serve, run, prometheus].map(|mut command| {
            command.stdin(Stdio::null());
            Process::start(command).unwrap()
        });
        let site = Self { _processes: started.into(), _dir: dir, address };
        let scraped = wait::until("three scrapes of both programs", TIMEOUT, || {
            (!site.query(SCRAPED)?.is_empty()).then_some(())
        });
        scraped.unwrap_or_else(|error| panic!("{error}: {:?}", get(site.address, "/api/v1/targets")));
        site
    }

    fn api(&self, target: &str) -> Option<Value> {
        serde_json::from_str(&get(self.address, target)?).ok()
    }

    /// Result of an instant query; `None` if it failed.
    fn query(&self, text: &str) -> Option<Vec<Value>> {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.api(&format!("/api/v1/query?query={encoded}"))?;
        (answer["status"] == "success").then(|| list(&answer["data"]["result"]).to_vec())
    }
}

#[test]
fn every_query_of_the_dashboard_has_a_result_and_every_rule_is_evaluated() {
    let site = Site::start();
    let queries: Vec<_> = queries::all().into_iter().filter(|query| query.language == "promql").collect();
    let (mut shown, mut executed) = (0, 0);
    for query in &queries {
        let (place, text) = (&query.place, &query.text);
        let result = site.query(text).unwrap_or_else(|| panic!("{place}: {text} failed"));
        executed += 1;
        if place.starts_with(queries::DASHBOARD) {
            // Also of an idle program, so that a panel shows 0 and not "no data".
            assert!(!result.is_empty() || text.contains(OF_TRACE), "{place}: {text} has no result");
            shown += 1;
        }
    }
    assert!(shown > 12 && executed > 40, "{shown} of {executed}");
    // A name that no program has.
    assert_eq!(site.query("t3_dispatch_open_sessions").as_deref(), Some(&[][..]));
    assert_eq!(site.query("sum(t3_dispatch_sessions"), None, "a syntax error");

    let health = wait::until("an evaluation of all rules", TIMEOUT, || {
        let answer = site.api("/api/v1/rules")?;
        let groups = list(&answer["data"]["groups"]).to_vec();
        let rules: Vec<_> = groups.iter().flat_map(|group| list(&group["rules"]).to_vec()).collect();
        let known = !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown");
        known.then_some(rules)
    });
    let rules = health.unwrap();
    let count: usize = RULES.iter().map(|name| queries::alerts(name).len()).sum();
    assert_eq!(rules.len(), count);
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
    }
}
