//! Metrics page compared with actual events: t3-dispatch in this process, sessions that end in
//! several ways, and several kinds of readers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod exposition;
mod fixture;
mod program;

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use exposition::Page;
use fixture::{Fixture, frame, head, reset, rest, switching};
use program::{GOOD, Running, dispatch, table, text, wait_for};
use t3_dispatch::{
    metrics::{page, server},
    routing::table::Table,
};
use t3_record::vocabulary::{Cause, Verdict};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn scrape(fixture: &Fixture) -> Page {
    Page::parse(&page::render(&fixture.app.metrics, &fixture.app.gauges()).unwrap())
}

/// Closes sessions in several ways. Returns the number of records by verdict and cause.
async fn several_endings(fixture: &mut Fixture) -> HashMap<(Verdict, Cause), f64> {
    let ping = frame(0x81, br#"{"_tag":"Ping"}"#, true);
    let pong = frame(0x81, br#"{"_tag":"Pong"}"#, false);

    // A close handshake, after two heartbeats.
    let (mut client, mut serve) = fixture.open().await;
    for _ in 0..2 {
        client.write_all(&ping).await.unwrap();
        fixture::exactly(&mut serve, ping.len()).await;
        serve.write_all(&pong).await.unwrap();
        fixture::exactly(&mut client, pong.len()).await;
    }
    client.write_all(&frame(0x88, &[3, 232], true)).await.unwrap();
    fixture::exactly(&mut serve, 8).await;
    serve.write_all(&frame(0x88, &[3, 232], false)).await.unwrap();
    drop(serve);
    rest(&mut client).await.unwrap();
    drop(client);

    // An RST from the client, and a reconnect within a minute, which serve ends with FIN.
    let (client, mut serve) = fixture.open().await;
    reset(client);
    assert!(rest(&mut serve).await.is_err());
    let (mut client, serve) = fixture.open().await;
    drop(serve);
    rest(&mut client).await.unwrap();
    drop(client);

    // No serve is running.
    let mut refused = fixture.send_upgrade("gone", "").await;
    assert!(head(&mut refused).await.starts_with("HTTP/1.1 502"));

    let mut seen = HashMap::new();
    for _ in 0..4 {
        let (_, record) = fixture.judgement().await;
        *seen.entry((record.verdict, record.cause)).or_insert(0.0) += 1.0;
    }
    fixture.no_more_records().await;
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_match_the_events_and_gauges_return_to_zero() {
    let mut fixture = Fixture::new(&[]).await;
    let before = scrape(&fixture);
    let open = fixture.open().await;
    assert_eq!(scrape(&fixture).value(r#"sessions{state="open"}"#), 1.0);
    reset(open.0);
    fixture.judgement().await;
    fixture.no_more_records().await;
    let base = scrape(&fixture);
    let seen = several_endings(&mut fixture).await;
    let after = scrape(&fixture);

    let grown = |series: &str| after.value(series) - base.value(series);
    assert!(seen.len() >= 3, "several verdicts: {seen:?}");
    for verdict in Verdict::ALL {
        for cause in Cause::ALL {
            let series = format!(r#"closes_total{{cause="{cause}",verdict="{verdict}"}}"#);
            assert_eq!(before.value(&series), 0.0, "{series} exists from the start");
            let expected = seen.get(&(*verdict, *cause)).copied().unwrap_or(0.0);
            assert_eq!(grown(&series), expected, "{series}");
        }
    }
    for (series, expected) in [
        ("upgrades_total", 4.0),
        ("opens_total", 3.0),
        ("session_duration_seconds_count", 3.0),
        ("heartbeat_rtt_seconds_count", 2.0),
        // Each of the three follows a session of the same user and address.
        ("reconnect_gap_seconds_count", 3.0),
        (r#"evidence_total{kernel="off"}"#, 4.0),
        (r#"evidence_total{kernel="kprobe"}"#, 0.0),
        (r#"upstream_connections_total{how="new"}"#, 3.0),
        (r#"upstream_connections_total{how="failed"}"#, 1.0),
        (r#"http_responses_total{by="serve",class="1xx"}"#, 3.0),
        (r#"http_responses_total{by="dispatch",class="5xx"}"#, 1.0),
        // ws open of three, ws close of four.
        (r#"journal_entries_total{outcome="written"}"#, 7.0),
        (r#"journal_entries_total{outcome="lost"}"#, 0.0),
        ("kernel_events_lost_total", 0.0),
    ] {
        assert_eq!(grown(series), expected, "{series}");
    }
    for gauge in [
        r#"sessions{state="opening"}"#,
        r#"sessions{state="open"}"#,
        r#"sessions{state="closing"}"#,
        "journal_entries_waiting",
        "trace_connected",
    ] {
        assert_eq!(after.value(gauge), 0.0, "{gauge}");
    }
    assert_eq!(after.value("table_logins"), 2.0);
    assert_eq!(after.value(&format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_and_invalid_requests_are_counted_by_reason() {
    let fixture = Fixture::new(&[]).await;
    let send = async |request: &str| {
        let mut client = TcpStream::connect(fixture.address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        head(&mut client).await
    };
    assert!(send("GET / HTTP/1.1\r\nHost: t3\r\n\r\n").await.contains(" 403 "));
    assert!(
        send("GET / HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: nobody\r\n\r\n").await.contains(" 403 ")
    );
    assert!(send("GET / HTTP/1.1\r\nno colon\r\n\r\n").await.contains(" 400 "));
    assert!(send("TRACE / HTTP/1.1\r\nHost: t3\r\n\r\n").await.contains(" 405 "));
    assert!(send("GET /healthz HTTP/1.1\r\nHost: t3\r\n\r\n").await.contains(" 200 "));
    let page = scrape(&fixture);
    for (series, expected) in [
        (r#"refused_total{reason="identity"}"#, 2.0),
        (r#"refused_total{reason="origin"}"#, 0.0),
        (r#"bad_requests_total{status="400"}"#, 1.0),
        (r#"bad_requests_total{status="405"}"#, 1.0),
        (r#"bad_requests_total{status="431"}"#, 0.0),
        (r#"http_responses_total{by="dispatch",class="4xx"}"#, 4.0),
        (r#"http_responses_total{by="dispatch",class="2xx"}"#, 1.0),
        (r#"http_responses_total{by="serve",class="2xx"}"#, 0.0),
        ("upgrades_total", 0.0),
    ] {
        assert_eq!(page.value(series), expected, "{series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_no_user_or_address() {
    let mut fixture = Fixture::new(&["--login-domain", "example.org"]).await;
    let port = fixture.serve.local_addr().unwrap().port();
    let uid = rustix::process::geteuid().as_raw();
    let zebedee = format!(r#"{{"zebulon": {{"os_user": "zebedee", "port": {port}, "uid": {uid}}}}}"#);
    let zebedee = Table::parse(&zebedee, Path::new("test")).unwrap();
    *fixture.app.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(zebedee);
    let mut client = fixture
        .send_upgrade("zebulon@example.org", "X-Forwarded-For: 203.0.113.9\r\nCf-Ray: 8c1fzebra-LHR\r\n")
        .await;
    let (mut serve, _) = fixture.accept().await;
    serve.write_all(switching().as_bytes()).await.unwrap();
    head(&mut client).await;
    let while_open = page::render(&fixture.app.metrics, &fixture.app.gauges()).unwrap();
    reset(client);
    let (_, record) = fixture.judgement().await;
    fixture.no_more_records().await;
    // The record does contain them.
    assert_eq!((record.user.as_str(), record.ip.as_str()), ("zebedee", "203.0.113.9"));
    let after = page::render(&fixture.app.metrics, &fixture.app.gauges()).unwrap();
    let forbidden = ["zeb", "203.0.113", "127.0.0.1", "example", "LHR", "secret", "ticket", &record.conn];
    for text in [while_open, after] {
        for word in forbidden {
            assert!(!text.contains(word), "{word} in\n{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_under_load_is_consistent() {
    const CLIENTS: usize = 4;
    const EACH: usize = 40;
    let mut fixture = Fixture::new(&[]).await;
    fixture.drain_messages();
    let over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (app, over) = (Arc::clone(&fixture.app), Arc::clone(&over));
        std::thread::spawn(move || {
            let mut last = Page::default();
            let mut pages = 0;
            while !over.load(Ordering::Relaxed) {
                let page = Page::parse(&page::render(&app.metrics, &app.gauges()).unwrap());
                let pending = page.value("upgrades_total") - page.sum("closes_total");
                assert_eq!(pending, page.sum("sessions"), "one record per upgrade");
                assert!(page.value("opens_total") <= page.value("upgrades_total"));
                last.assert_not_above(&page);
                last = page;
                pages += 1;
            }
            pages
        })
    };
    let address = fixture.address;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            tokio::spawn(async move {
                for _ in 0..EACH {
                    let mut client = fixture::send_upgrade(address, "ann", "").await;
                    head(&mut client).await;
                    reset(client);
                }
            })
        })
        .collect();
    for _ in 0..CLIENTS * EACH {
        let (mut serve, _) = fixture.accept().await;
        serve.write_all(switching().as_bytes()).await.unwrap();
    }
    for client in clients {
        client.await.unwrap();
    }
    for _ in 0..CLIENTS * EACH {
        fixture.judgement().await;
    }
    fixture.no_more_records().await;
    over.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 10, "enough pages to compare");
    let page = scrape(&fixture);
    #[expect(clippy::cast_precision_loss, reason = "160")]
    let all = (CLIENTS * EACH) as f64;
    assert_eq!((page.value("upgrades_total"), page.sum("closes_total")), (all, all));
    assert_eq!(page.sum("sessions"), 0.0);
}

async fn get_metrics(address: std::net::SocketAddr, request: &str) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(format!("{request} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_has_one_page() {
    let fixture = Fixture::new(&[]).await;
    let listener = server::bind("127.0.0.1:0".parse().unwrap()).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve(
        Arc::clone(&fixture.app.metrics),
        {
            let app = Arc::clone(&fixture.app);
            move || app.gauges()
        },
        listener,
    ));
    let page = get_metrics(address, "GET /metrics").await;
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    Page::parse(body);
    let answer = get_metrics(address, "HEAD /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    for (request, status, says) in [
        ("GET /", "200", "/metrics"),
        ("GET /metrics/", "404", "/metrics"),
        ("GET /ws", "404", "/metrics"),
        ("POST /metrics", "405", "allow: GET, HEAD"),
    ] {
        let answer = get_metrics(address, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(says), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_readers_are_limited_and_do_not_affect_the_proxy() {
    let mut fixture = Fixture::new(&[]).await;
    let listener = server::bind("127.0.0.1:0".parse().unwrap()).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve(
        Arc::clone(&fixture.app.metrics),
        {
            let app = Arc::clone(&fixture.app);
            move || app.gauges()
        },
        listener,
    ));
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // They do not lock out Prometheus, whose request is there before their timeout of 5 s.
    let page = tokio::time::timeout(std::time::Duration::from_secs(3), get_metrics(address, "GET /metrics"));
    assert!(page.await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    // The oldest above the limit are closed immediately.
    for stream in silent.iter_mut().take(68) {
        let read = tokio::time::timeout(std::time::Duration::from_secs(1), stream.read(&mut [0; 1])).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    }
    let (client, mut serve) = fixture.open().await;
    reset(client);
    assert!(rest(&mut serve).await.is_err());
    fixture.judgement().await;
    // Their slots are released when they disconnect.
    drop(silent);
    loop {
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut answer = String::new();
        let sent = client.write_all(b"GET /metrics HTTP/1.1\r\nHost: m\r\n\r\n").await;
        if sent.is_ok()
            && client.read_to_string(&mut answer).await.is_ok()
            && answer.contains("opens_total 1")
        {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[test]
fn metrics_are_served_only_at_the_configured_address() {
    let table = table(GOOD);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output =
        dispatch(table.path(), &["--listen", "127.0.0.1:0", "--metrics-listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let output_text = text(&output);
    assert!(output_text.contains(&format!("cannot listen on {address} for metrics: ")), "{output_text}");

    let with = ["--listen", "127.0.0.1:0", "--metrics-listen", "[::]:0"];
    let mut child = dispatch(table.path(), &with).spawn().unwrap();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let line = wait_for(&mut log, "metrics on http://");
    let port: u16 =
        line.trim().strip_suffix("/metrics").unwrap().rsplit(':').next().unwrap().parse().unwrap();
    wait_for(&mut log, "is not a loopback address: every host that can connect can read the metrics");
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(Page::parse(answer.split_once("\r\n\r\n").unwrap().1).value("table_logins"), 1.0);
    child.kill().unwrap();
    child.wait().unwrap();

    let none = Running::start_with(table.path(), &["--metrics-listen", "off"]);
    let listening = std::fs::read_dir(format!("/proc/{}/fd", none.child.id()))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned))
        .filter(|inode| is_listening(inode))
        .count();
    assert_eq!(listening, 1, "the listener of the proxy");
}

/// A TCP socket in state LISTEN, `0A` in the fourth field of `/proc/net/tcp` (proc(5)).
fn is_listening(inode: &str) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        let lines = std::fs::read_to_string(table).unwrap_or_default();
        lines.lines().any(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            fields.get(3) == Some(&"0A") && fields.get(9) == Some(&inode)
        })
    })
}
