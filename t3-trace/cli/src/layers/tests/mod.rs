//! Tests of the queries against fakes of Loki and Prometheus.

mod statements;
mod stub;

use std::{fs, sync::Arc, time::Duration};

use serde_json::{Value, json};
use t3_record::{
    Cause, CloseRecord, KernelSource, Segment, Verdict,
    edge::{Part, refine},
    probe::attribution::Place,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto, pki_types::PrivateKeyDer},
};

use super::*;
use crate::server::LokiArgs;
use stub::Stub;

const TRAEFIK: &str = r#"{job="traefik"}"#;
const CLOUDFLARED: &str = r#"{job="cloudflared"}"#;

/// 2026-08-22T10:01:03Z, and a session of a minute before it.
const AT: i64 = 1_787_392_863_000;
const DUR: u64 = 60_000;
const NS: i64 = 1_000_000;

fn record() -> CloseRecord {
    CloseRecord::new(
        "ann".to_owned(),
        "203.0.113.7".to_owned(),
        DUR,
        Cause::DownstreamClosed,
        Verdict::ClientLeft,
        Segment::Downstream,
        "c1".to_owned(),
        KernelSource::Tracepoint,
    )
}

fn access() -> String {
    r#"203.0.113.7 - - [22/Aug/2026:10:00:02 +0000] "GET /ws?wsTicket=secret HTTP/1.1" 0 0 "-" "-" 4711 "r" "s" 60011ms"#.to_owned()
}

fn lost(second: u32) -> String {
    format!("2026-08-22T10:01:{second:02}Z ERR Serve tunnel error error=\"x\" connIndex=2")
}

fn loki(lines: &[(&str, Vec<stub::Line>)]) -> Stub {
    let lines = lines.iter().map(|(selector, lines)| ((*selector).to_owned(), lines.clone())).collect();
    Stub { lines, ..Stub::default() }
}

fn asking(loki: std::net::SocketAddr) -> LayerArgs {
    LayerArgs {
        server: LokiArgs { loki: Some(format!("http://{loki}")), ..LokiArgs::default() },
        ..LayerArgs::default()
    }
}

/// Loki at an address, with CA certificates.
fn at(url: &str, layer_ca: Option<std::path::PathBuf>) -> LayerArgs {
    let server = LokiArgs { loki: Some(url.to_owned()), layer_ca, ..LokiArgs::default() };
    LayerArgs { server, ..LayerArgs::default() }
}

async fn gathered(args: &LayerArgs) -> LayerData {
    let record = record();
    let ended = Ended { record: &record, at_ms: AT };
    gather(args, &ended, Window::around(&ended)).await
}

fn status(gathered: &LayerData, layer: Layer) -> &QueryStatus {
    &gathered.outcomes.iter().find(|outcome| outcome.layer == layer).unwrap().status
}

fn why(gathered: &LayerData, layer: Layer) -> &str {
    match status(gathered, layer) {
        QueryStatus::Failed { why } => why,
        other => panic!("{other:?}"),
    }
}

fn found(gathered: &LayerData, layer: Layer) -> (usize, Option<&str>) {
    match status(gathered, layer) {
        QueryStatus::Yes { found, note, .. } => (*found, note.as_deref()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn no_layer_is_queried_without_its_option() {
    let nothing = gathered(&LayerArgs::default()).await;
    assert!(nothing.outcomes.iter().map(|outcome| outcome.layer).eq(Layer::ALL));
    assert!(nothing.outcomes.iter().all(|outcome| outcome.status == QueryStatus::No));
    assert_eq!(nothing.layers, Layers::default());
}

#[tokio::test]
async fn lines_of_loki_are_parsed_and_other_streams_made_printable() {
    let other = vec![
        ((AT - 500) * NS, "b", "GET /ws?wsTicket=secret \x1b[2J x".to_owned()),
        ((AT - 600) * NS, "a", "oom\n".to_owned()),
        ((AT - 90_000) * NS, "a", "before the window".to_owned()),
    ];
    let stub = loki(&[
        (TRAEFIK, vec![(AT * NS, "traefik", access()), (AT * NS, "traefik", "level=info /ws".to_owned())]),
        (
            CLOUDFLARED,
            vec![
                ((AT - 1_000) * NS, "cloudflared", lost(2)),
                (AT * NS, "cloudflared", lost(59).replace("10:01", "09:01")),
            ],
        ),
        ("{unit=\"x\"}", other),
    ]);
    let (address, stub) = stub.start().await;
    let args = LayerArgs { loki_selector: vec!["{unit=\"x\"}".to_owned()], ..asking(address) };
    let gathered = gathered(&args).await;
    assert_eq!(gathered.layers.traefik.as_ref().unwrap().lines.len(), 1);
    // The second was received in the window, but its time is outside.
    assert_eq!(gathered.layers.cloudflared.as_ref().unwrap().lines.len(), 1);
    let lines: Vec<_> =
        gathered.lines.iter().map(|line| (line.at_ms - AT, &*line.stream, &*line.text)).collect();
    assert_eq!(
        lines,
        [(-600, "{job=\"a\"}", "oom"), (-500, "{job=\"b\"}", "GET /ws?… \u{fffd}[2J x")]
            .map(|(at, stream, text)| (at, stream, text))
    );
    assert_eq!((found(&gathered, Layer::Traefik), found(&gathered, Layer::Streams)), ((1, None), (2, None)));
    assert_eq!(status(&gathered, Layer::Probe), &QueryStatus::No);
    let QueryStatus::Yes { from, .. } = status(&gathered, Layer::Traefik) else { panic!() };
    assert_eq!(*from, format!("Loki at http://{address}, {TRAEFIK}"));
    assert!(stub.queries().contains(&format!("{TRAEFIK} |= \"/ws\"")), "{:?}", stub.queries());
    let record = record();
    let refined = refine(&Ended { record: &record, at_ms: AT }, &gathered.layers);
    assert_eq!(refined.line.unwrap().duration_ms, 60_011);
}

#[tokio::test]
async fn pages_are_joined_without_gaps_and_duplicates() {
    // Many lines of one nanosecond lie across the ends of pages, and one line stands twice in
    // different streams.
    let line =
        |n: i64| (AT * NS + n / 7, if n % 2 == 0 { "even" } else { "odd" }, format!("line {}", n / 2 * 2));
    let stub = loki(&[("{x=\"y\"}", (0..4_321).map(line).collect())]);
    let (address, stub) = stub.start().await;
    let args = LayerArgs {
        loki_selector: vec!["{x=\"y\"}".to_owned()],
        traefik_log: vec!["/nowhere".into()],
        cloudflared_log: vec!["/nowhere".into()],
        ..asking(address)
    };
    let gathered = gathered(&args).await;
    assert_eq!(found(&gathered, Layer::Streams), (4_321, None));
    let mut pairs: Vec<_> = gathered.lines.iter().map(|line| (&line.stream, &line.text)).collect();
    pairs.sort();
    pairs.dedup();
    assert_eq!(pairs.len(), 4_321);
    assert_eq!(stub.queries().len(), 5);
}

#[tokio::test]
async fn more_lines_of_one_time_than_a_page_are_cut_with_a_note() {
    let lines = (0..1_500).map(|n| (AT * NS, "x", format!("line {n}"))).collect();
    let (address, stub) = loki(&[("{x=\"y\"}", lines)]).start().await;
    let args = LayerArgs { loki_selector: vec!["{x=\"y\"}".to_owned()], ..asking(address) };
    let gathered = gathered(&args).await;
    assert_eq!(found(&gathered, Layer::Streams), (1_000, Some("incomplete: too many lines")));
    assert!(stub.queries().len() < 10);
}

#[tokio::test]
async fn missing_lines_count_only_for_a_live_stream() {
    let day = 86_400_000;
    let stub = loki(&[
        (TRAEFIK, vec![(AT * NS, "traefik", "another kind of line /ws".to_owned())]),
        (CLOUDFLARED, vec![((AT - 3 * day) * NS, "cloudflared", lost(1))]),
    ]);
    let (address, _stub) = stub.start().await;
    let quiet = gathered(&asking(address)).await;
    assert_eq!(found(&quiet, Layer::Cloudflared), (0, None));
    assert_eq!(quiet.layers.cloudflared.as_ref().map(|reading| reading.lines.len()), Some(0));
    assert!(why(&quiet, Layer::Traefik).contains("none in the format of this log; check --traefik-selector"));
    let (address, _stub) =
        loki(&[(CLOUDFLARED, vec![((AT - 8 * day) * NS, "cloudflared", lost(1))])]).start().await;
    let dead = gathered(&asking(address)).await;
    assert!(
        why(&dead, Layer::Cloudflared).contains("no line in the last week"),
        "{}",
        why(&dead, Layer::Cloudflared)
    );
    assert_eq!((dead.layers.cloudflared, dead.layers.traefik), (None, None));
}

#[tokio::test]
async fn credentials_and_tenant_are_sent_in_headers() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        Some(dir.path().join(name))
    };
    let (address, stub) = Stub::default().start().await;
    let server = LokiArgs {
        loki_token_file: file("token", "s3cret\n"),
        loki_tenant: Some("t3".to_owned()),
        ..asking(address).server
    };
    let args = LayerArgs { server, ..LayerArgs::default() };
    gathered(&args).await;
    assert_eq!(stub.header("authorization").as_deref(), Some("Bearer s3cret"));
    assert_eq!(stub.header("x-scope-orgid").as_deref(), Some("t3"));
    let args = LayerArgs {
        prometheus: Some(format!("http://{address}/")),
        prometheus_user: Some("ann".to_owned()),
        prometheus_password_file: file("password", "pw"),
        prometheus_header_file: file("header", "CF-Access-Client-Id: x y\n"),
        ..LayerArgs::default()
    };
    gathered(&args).await;
    assert_eq!(stub.header("authorization").as_deref(), Some("Basic YW5uOnB3"));
    assert_eq!(stub.header("cf-access-client-id").as_deref(), Some("x y"));
    assert_eq!(stub.header("host").as_deref(), Some(&*address.to_string()));
}

#[tokio::test]
async fn errors_are_one_clause_without_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "s3cret").unwrap();
    for (status, body, said) in [
        (
            401,
            "no org id, token s3cret",
            "401 Unauthorized: no org id, token …; set credentials with --loki-token-file",
        ),
        (
            400,
            "parse error\n\x1b[2J at line 1",
            "400 Bad Request: parse error\u{fffd}\u{fffd}[2J at line 1; check the selectors",
        ),
        (302, "", "302 Found; redirected to a login page?"),
        (404, "404 page not found", "404 Not Found: 404 page not found; is --loki the base of its API?"),
        (429, "", "429 Too Many Requests; it is overloaded"),
        (503, "x", "503 Service Unavailable: x; see its own log"),
        (
            200,
            "<html>GET /ws?wsTicket=QqSecretQq",
            "answered something other than a Loki query_range response: <html>GET /ws?…; check --loki",
        ),
        (200, r#"{"data":{"resultType":"matrix","result":[]}}"#, "the selector must select lines"),
        (200, r#"{"data":{"resultType":"streams","result":[{"values":[["1"]]}]}}"#, "pairs of time and line"),
        (
            200,
            r#"{"data":{"resultType":"streams","result":[{"values":[["x","y"]]}]}}"#,
            "times in nanoseconds",
        ),
        (200, "", "answered something other than"),
    ] {
        let (address, _stub) =
            Stub { instead: Some((status, body.to_owned())), ..Stub::default() }.start().await;
        let server = LokiArgs { loki_token_file: Some(token.clone()), ..asking(address).server };
        let args = LayerArgs { server, ..LayerArgs::default() };
        let gathered = gathered(&args).await;
        let why = why(&gathered, Layer::Cloudflared);
        assert!(why.contains(said) && !why.contains("s3cret") && !why.contains("QqSecretQq"), "{why}");
        assert!(why.starts_with(&format!("Loki at http://{address} answered")), "{why}");
        assert!(!why.contains(char::is_control));
    }
}

#[tokio::test]
async fn a_slow_or_absent_server_is_an_error_within_the_timeout() {
    let (slow, _stub) = Stub { delay: Duration::from_secs(600), ..Stub::default() }.start().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let args = LayerArgs {
        prometheus: Some(format!("http://{closed}")),
        layer_timeout: Duration::from_millis(200),
        ..asking(slow)
    };
    let gathered = gathered(&args).await;
    assert_eq!(
        why(&gathered, Layer::Traefik),
        format!("no complete response from Loki at http://{slow} within 0.2 s (--layer-timeout)")
    );
    assert!(
        why(&gathered, Layer::Probe)
            .starts_with(&format!("cannot connect to Prometheus at http://{closed}: "))
    );
    let wrong = at("http://u:p@host", None);
    assert!(why(&self::gathered(&wrong).await, Layer::Traefik).starts_with("--loki contains a password"));
}

#[tokio::test]
async fn https_needs_a_trusted_certificate() {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("ca.pem");
    fs::write(&roots, certificate.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let stub = loki(&[(CLOUDFLARED, vec![(AT * NS, "cloudflared", lost(3))])]);
    let (address, _stub) = stub.start_with(Some(TlsAcceptor::from(Arc::new(config)))).await;
    let url = format!("https://localhost:{}", address.port());
    let strange = gathered(&at(&url, None)).await;
    assert!(
        why(&strange, Layer::Cloudflared).contains("trust store of the system, or set --layer-ca"),
        "{}",
        why(&strange, Layer::Cloudflared)
    );
    let known = gathered(&at(&url, Some(roots))).await;
    assert_eq!(found(&known, Layer::Cloudflared), (1, None));
    let nowhere = at(&url, Some(dir.path().join("none")));
    assert!(why(&gathered(&nowhere).await, Layer::Cloudflared).contains("check --layer-ca"));
}

/// Series of a leg, scraped every 30 s.
fn leg(name: &str, up: &str) -> Vec<(&'static str, Value)> {
    let times = [-60_i64, -30, 0, 30].map(|after| AT / 1000 + after);
    let values =
        |value: &dyn Fn(i64) -> String| -> Value { times.iter().map(|at| json!([at, value(*at)])).collect() };
    let row = |labels: Value, values: Value| json!({"metric": labels, "values": values});
    let counted = &|at: i64| (at - AT / 1000 + 100).to_string();
    vec![
        ("t3probe_connected", row(json!({"leg": name}), values(&|_| up.to_owned()))),
        ("timestamp(t3probe_connected)", row(json!({"leg": name}), values(&|at| at.to_string()))),
        ("t3probe_rtt_seconds_bucket", row(json!({"leg": name, "le": "1"}), values(counted))),
        ("t3probe_rtt_seconds_bucket", row(json!({"leg": name, "le": "+Inf"}), values(counted))),
    ]
}

fn prometheus(rows: Vec<(&'static str, Value)>) -> Stub {
    let mut stub = Stub::default();
    for (query, row) in rows {
        stub.series.entry(query.to_owned()).or_insert_with(|| json!([])).as_array_mut().unwrap().push(row);
    }
    stub
}

#[tokio::test]
async fn probe_legs_and_host_pressure_come_from_prometheus() {
    let legs =
        |cloudflare| [leg("cloudflare", cloudflare), leg("internal", "1"), leg("t3serve:ann", "1")].concat();
    let io = (
        "100 * rate(node_pressure_io_waiting_seconds_total{instance=\"devvm:9100\"}[2m])",
        json!({"metric": {"instance": "devvm:9100"}, "values": [[AT / 1000, "41.5"], [AT / 1000 + 15, "NaN"]]}),
    );
    let (address, stub) = prometheus([legs("1"), vec![io]].concat()).start().await;
    let args = LayerArgs {
        prometheus: Some(format!("http://{address}")),
        prometheus_host: Some("instance=\"devvm:9100\"".to_owned()),
        ..LayerArgs::default()
    };
    let healthy = gathered(&args).await;
    let probe = healthy.layers.probe.as_ref().unwrap();
    assert_eq!((probe.place, found(&healthy, Layer::Probe).1), (Place::LastMile, None), "{}", probe.sentence);
    assert_eq!(
        healthy.pressure,
        [Pressure { resource: "io", instance: "devvm:9100".to_owned(), points: vec![(AT, 41.5)] }]
    );
    let query = stub.received.lock().unwrap().last().unwrap().0.clone();
    assert_eq!((&*query["start"], &*query["step"]), (&*format!("{}.000", AT / 1000 - 60), "15"));
    let (address, _stub) = prometheus(legs("0")).start().await;
    let down =
        gathered(&LayerArgs { prometheus: Some(format!("http://{address}")), ..LayerArgs::default() }).await;
    assert_eq!(down.layers.probe.as_ref().map(|probe| probe.place), Some(Place::Cloudflare));
    assert!(why(&down, Layer::Pressure).contains("node_exporter"));
    let (address, _stub) = Stub::default().start().await;
    let none =
        gathered(&LayerArgs { prometheus: Some(format!("http://{address}")), ..LayerArgs::default() }).await;
    assert!(why(&none, Layer::Probe).contains("does it scrape t3-probe"));
}

#[test]
fn files_replace_loki_and_all_layers_name_a_hop() {
    let dir = tempfile::tempdir().unwrap();
    let (traefik, tunnel) = (dir.path().join("access.log"), dir.path().join("cloudflared.log"));
    let elsewhere = access().replace("10:00:02", "09:00:02");
    fs::write(&traefik, format!("{elsewhere}\n{}\n", access())).unwrap();
    fs::write(&tunnel, format!("{}\n{}\n", lost(2).replace("10:01", "09:01"), "hello")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stub = prometheus([leg("cloudflare", "1"), leg("internal", "1"), leg("t3serve", "1")].concat());
    let (address, _stub) = runtime.block_on(stub.start());
    let args = LayerArgs {
        // Not queried, because the files replace it.
        server: at("http://127.0.0.1:1", None).server,
        prometheus: Some(format!("http://{address}")),
        traefik_log: vec![traefik],
        cloudflared_log: vec![tunnel],
        ..LayerArgs::default()
    };
    let record = record();
    let ended = Ended { record: &record, at_ms: AT };
    let gathered = gather_blocking(&args, &ended, Window::around(&ended)).unwrap();
    assert_eq!(
        (found(&gathered, Layer::Traefik), found(&gathered, Layer::Cloudflared)),
        ((1, None), (0, None))
    );
    let refined = refine(&ended, &gathered.layers);
    assert_eq!(refined.part, Some(Part::LastMile), "{refined:?}");
}

#[test]
fn missing_heartbeats_extend_the_window() {
    let mut record = record();
    record.hb_wait_ms = Some(20_000);
    record.hb_gap_ms = Some(900_000);
    let window = |record: &CloseRecord| Window::around(&Ended { record, at_ms: AT });
    assert_eq!(window(&record), Window { from_ms: AT - 360_000, until_ms: AT + 60_000 });
    record.hb_gap_ms = None;
    assert_eq!(window(&record).from_ms, AT - 80_000);
}
