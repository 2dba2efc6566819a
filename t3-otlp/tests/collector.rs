//! The program in front of a collector on loopback that decodes what it receives.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails its test")]

use std::{
    borrow::Cow,
    collections::BTreeMap,
    convert::Infallible,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{KeyValue, any_value::Value as Any},
    logs::v1::LogRecord,
    trace::v1::Span,
};
use prost::Message as _;
use serde_json::json;
use t3_record::CloseRecord;

const LIMIT: Duration = Duration::from_secs(30);
const PROGRAM: &str = env!("CARGO_BIN_EXE_t3-otlp");

/// A request that the collector received, after its answer was sent.
#[derive(Debug)]
enum Received {
    Logs(StatusCode, Vec<LogRecord>),
    Traces(StatusCode, Vec<Span>),
}

/// A collector that answers each request with the next of `answers`, then with 200.
fn collector(answers: Vec<(StatusCode, Vec<u8>)>) -> (SocketAddr, Receiver<Received>) {
    let (send, received) = mpsc::channel();
    let (bound, address) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            let mut answers = answers.into_iter();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = answers.next().unwrap_or((StatusCode::OK, Vec::new()));
                let service = service_fn(|request| answered(request, answer.clone(), send.clone()));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        });
    });
    (address.recv().unwrap(), received)
}

async fn answered(
    request: Request<Incoming>,
    (status, body): (StatusCode, Vec<u8>),
    received: Sender<Received>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    let path = request.uri().path().to_owned();
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    let found = match path.as_str() {
        "/v1/logs" => {
            let request = ExportLogsServiceRequest::decode(bytes).unwrap();
            let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
            Received::Logs(status, scopes.flat_map(|scope| scope.log_records).collect())
        }
        "/v1/traces" => {
            let request = ExportTraceServiceRequest::decode(bytes).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            Received::Traces(status, scopes.flat_map(|scope| scope.spans).collect())
        }
        other => panic!("{other}"),
    };
    let _ = received.send(found);
    Ok(Response::builder().status(status).body(Full::new(body.into())).unwrap())
}

/// A record with an unusual text and numbers.
fn record(conn: &str) -> CloseRecord {
    let line = format!(
        "ws close user=alice ip=203.0.113.7 dur_ms=61873 cause=upstream_closed verdict=serve_oom segment=serve \
         conn={conn} kernel=tracepoint psi_mem=98.5"
    );
    let mut record = CloseRecord::from_line(&line).unwrap();
    record.ws_reason = Some("so \"long\"\n=ünd".to_owned());
    record.ray = Some("8c1f2d3e4f5a6b7c-FRA".to_owned());
    record
}

/// As `journalctl --output=json` prints it.
fn entry(record: &CloseRecord, cursor: &str) -> String {
    let mut fields: BTreeMap<String, serde_json::Value> =
        record.to_fields().into_iter().map(|(name, value)| (name.into_owned(), json!(value))).collect();
    fields.insert("__REALTIME_TIMESTAMP".to_owned(), json!("1772331225120000"));
    fields.insert("__CURSOR".to_owned(), json!(cursor));
    fields.insert("_HOSTNAME".to_owned(), json!("devvm"));
    serde_json::to_string(&fields).unwrap() + "\n"
}

/// The record that the attributes contain.
fn read_back(attributes: &[KeyValue]) -> CloseRecord {
    let text = |key: &str| {
        let found = attributes.iter().find(|found| found.key == format!("t3.{key}"))?;
        match found.value.as_ref()?.value.as_ref()? {
            Any::StringValue(text) => Some(text.clone()),
            Any::IntValue(number) => Some(number.to_string()),
            Any::DoubleValue(number) => Some(format!("{number:?}")),
            other => panic!("{key}: {other:?}"),
        }
    };
    CloseRecord::from_pairs(|key| text(key).map(Cow::Owned)).unwrap()
}

fn run(address: SocketAddr, arguments: &[&str]) -> (Option<i32>, String) {
    let endpoint = format!("http://{address}");
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--config", "/dev/null", "--max-delay", "50ms", "--endpoint", &endpoint]);
    let output = command.args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_whole_record_arrives_as_a_log_record_and_as_a_span() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal.json");
    let sent = [record("c1"), record("c2")];
    fs::write(&file, sent.iter().map(|record| entry(record, "s=1")).collect::<String>()).unwrap();
    // The first attempts of both signals fail.
    let (address, received) = collector(vec![
        (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
        (StatusCode::OK, Vec::new()),
        (StatusCode::TOO_MANY_REQUESTS, Vec::new()),
    ]);
    let (code, stderr) = run(address, &["--from", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    let (mut logs, mut spans) = (Vec::new(), Vec::new());
    for received in received.try_iter() {
        match received {
            Received::Logs(StatusCode::OK, records) => logs.extend(records),
            Received::Traces(StatusCode::OK, records) => spans.extend(records),
            _ => {}
        }
    }
    assert_eq!(logs.iter().map(|log| read_back(&log.attributes)).collect::<Vec<_>>(), sent);
    assert_eq!(spans.iter().map(|span| read_back(&span.attributes)).collect::<Vec<_>>(), sent);
    for (log, span) in logs.iter().zip(&spans) {
        assert_eq!(log.time_unix_nano, 1_772_331_225_120_000_000);
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 61_873_000_000);
        assert_eq!((&log.trace_id, &log.span_id), (&span.trace_id, &span.span_id));
    }
}

#[test]
fn records_that_cannot_be_exported_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal.json");
    let broken = entry(&record("c2"), "s=2").replace("61873", "many");
    fs::write(&file, entry(&record("c1"), "s=1") + &broken).unwrap();
    let partial = ExportLogsPartialSuccess { rejected_log_records: 1, error_message: "too old".to_owned() };
    let answer = ExportLogsServiceResponse { partial_success: Some(partial) };
    let (address, _received) = collector(vec![(StatusCode::OK, answer.encode_to_vec())]);
    let (code, stderr) = run(address, &["--from", file.to_str().unwrap(), "--signals", "logs"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("too old"), "{stderr}");
    assert!(stderr.contains("records_total=1 rejected_total=1 unreadable_total=1"), "{stderr}");
}

/// A journalctl that prints `entries` and then follows; it appends its arguments to `called`.
fn fake_journalctl(dir: &Path, entries: &str) {
    fs::write(dir.join("entries"), entries).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {0}/called\ncase \"$*\" in\n*--lines=1*) echo '{{\"__CURSOR\":\"s=0\"}}' ;;\n\
         *) cat {0}/entries; exec sleep 600 ;;\nesac\n",
        dir.display()
    );
    fs::write(dir.join("journalctl"), script).unwrap();
    fs::set_permissions(dir.join("journalctl"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn follow(address: SocketAddr, dir: &Path) -> Child {
    let mut command = Command::new(PROGRAM);
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    command.args(["run", "--config", "/dev/null", "--max-delay", "50ms", "--batch-time", "10ms"]);
    command.args(["--endpoint", &format!("http://{address}"), "--cursor-file"]).arg(dir.join("cursor"));
    command.env("PATH", path).stderr(Stdio::null()).spawn().unwrap()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_restart_continues_after_the_last_accepted_record() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    fake_journalctl(dir, &(entry(&record("c1"), "s=1") + &entry(&record("c2"), "s=2")));

    // A collector that never accepts: the position stays at the end of the journal at the start.
    let refusals = vec![(StatusCode::UNAUTHORIZED, Vec::new()); 1000];
    let (refusing, received) = collector(refusals);
    let mut program = follow(refusing, dir);
    received.recv_timeout(LIMIT).unwrap();
    program.kill().unwrap();
    program.wait().unwrap();
    assert_eq!(read("cursor").trim(), "s=0");

    let (accepting, received) = collector(Vec::new());
    let mut program = follow(accepting, dir);
    until("both records are accepted", || read("cursor").trim() == "s=2");
    program.kill().unwrap();
    program.wait().unwrap();
    let exported: Vec<_> = received
        .try_iter()
        .filter_map(|received| match received {
            Received::Logs(_, logs) => Some(logs),
            Received::Traces(..) => None,
        })
        .flatten()
        .map(|log| read_back(&log.attributes).conn)
        .collect();
    assert_eq!(exported, ["c1", "c2"]);

    let mut program = follow(accepting, dir);
    until("the next process reads", || read("called").lines().count() == 4);
    program.kill().unwrap();
    program.wait().unwrap();
    let calls = read("called");
    let after =
        |n: usize| calls.lines().nth(n).unwrap().split("--after-cursor=").nth(1).unwrap().split(' ').next();
    assert!(calls.lines().next().unwrap().contains("--lines=1"), "{calls}");
    assert_eq!((after(1), after(2), after(3)), (Some("s=0"), Some("s=0"), Some("s=2")), "{calls}");
}

#[test]
fn a_missing_endpoint_is_a_usage_error() {
    let output = Command::new(PROGRAM).args(["run", "--config", "/dev/null"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--endpoint"), "{stderr}");
}
