//! The relay against a model: what a peer sent before its end arrives, then its end. Random chunks,
//! delays, blocked readers, FIN, RST and Close frames in any order on both sides.
//!
//! 100,000 cases; with `T3_QUICK` 1,000, with `T3_RELAY_CASES=N` N. `T3_RELAY_CASE=N` plays one.
//! Needs `haproxy` for ten cases with HAProxy beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use t3_dispatch::{
    relay::{self, Legs, RelayObserver, RelayTimeouts, Relayed, session::Session},
    shutdown::signal::ShutdownSignal,
    sys::tcp,
};
use t3_record::{evidence::RelayFacts, wire};
use t3_testkit::{
    peer_script::{ArrivedEnd, Outcome, PeerEnd, Script, check, play},
    prerequisite,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, timeout},
};

const CASES: u64 = 100_000;
const QUICK_CASES: u64 = 1_000;
/// Cases that are played at the same time.
const LANES: u64 = 384;
/// A case that takes longer is stuck.
const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUTS: RelayTimeouts =
    RelayTimeouts { close: Duration::from_secs(10), going_away: Duration::from_secs(1) };

struct Silent;

impl RelayObserver for Silent {
    fn end_started(&self, _: &Session) {}

    fn heartbeat(&self, _: u64) {}
}

fn session() -> Session {
    let identity = wire::Session {
        conn: "c".into(),
        user: "ann".into(),
        ip: "192.0.2.1".into(),
        ray: None,
        opened_at: None,
        down: None,
        up: None,
        serve_port: 1,
        kept: false,
        resumed: 0,
    };
    let mut session = Session::new(identity, 1);
    session.opened(2, None);
    session
}

/// Returns a connected pair; `number` spreads the connections over addresses, so that the ports of
/// one do not run out.
async fn pair(listener: &TcpListener, number: u64, receive_buffer: Option<u32>) -> (TcpStream, TcpStream) {
    let [.., high, low] = number.to_be_bytes();
    let port = listener.local_addr().unwrap().port();
    let address = SocketAddr::from((Ipv4Addr::new(127, high, low, 1), port));
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    let (near, far) = tokio::join!(socket.connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

async fn run(
    case: u64,
    client: &Script,
    serve: &Script,
    listener: &TcpListener,
) -> (Outcome, Outcome, RelayFacts) {
    let (near_client, down) = pair(listener, case, client.receive_buffer).await;
    let (near_serve, up) = pair(listener, case + 1, serve.receive_buffer).await;
    let timeouts = tcp::TcpTimeouts { keepalive: Duration::ZERO, user_timeout: Duration::from_secs(30) };
    tcp::prepare(&down, &timeouts).unwrap();
    tcp::prepare(&up, &timeouts).unwrap();
    let mut session = session();
    let shutdown = Arc::new(ShutdownSignal::default());
    let signal = shutdown.subscribe();
    let all = async {
        tokio::join!(
            play(near_client, client),
            play(near_serve, serve),
            relay::run(&mut session, Box::new(Legs { down, up }), None, TIMEOUTS, &signal, &Silent)
        )
    };
    let played = timeout(TIMEOUT, all).await;
    let (at_client, at_serve, outcome) =
        played.unwrap_or_else(|_| panic!("case {case} is stuck: {client:?} {serve:?}"));
    assert_eq!(outcome, Relayed::Ended);
    (at_client, at_serve, session.facts)
}

/// Short text of a script.
fn text(script: &Script) -> String {
    let Script { end, blocked, receive_buffer, .. } = script;
    format!("{} bytes, {end:?}, blocked {blocked:?}, buffer {receive_buffer:?}", script.bytes().len())
}

async fn case(case: u64, listener: &TcpListener) -> Result<(), String> {
    let (client, serve) = Script::pair(case);
    let (at_client, at_serve, facts) = run(case, &client, &serve, listener).await;
    let described = || format!("case {case}: client {}; serve {}", text(&client), text(&serve));
    check(&client, &at_client, &at_serve).map_err(|why| format!("{}: to serve: {why}", described()))?;
    check(&serve, &at_serve, &at_client).map_err(|why| format!("{}: to the client: {why}", described()))?;
    let no_reset = |outcome: &Outcome| outcome.end.is_some_and(|end| end != PeerEnd::Rst);
    if no_reset(&at_client) && no_reset(&at_serve) && facts.down.undelivered + facts.up.undelivered > 0 {
        return Err(format!("{}: undelivered: {facts:?}", described()));
    }
    Ok(())
}

#[test]
fn what_a_peer_sent_before_its_end_arrives_then_its_end() {
    t3_dispatch::process::fd_limit::raise_descriptor_limit();
    let only = std::env::var("T3_RELAY_CASE").ok().map(|text| text.parse::<u64>().unwrap());
    let cases = if std::env::var_os("T3_QUICK").is_some() { QUICK_CASES } else { CASES };
    let cases = std::env::var("T3_RELAY_CASES").map_or(cases, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let next = Arc::new(AtomicU64::new(only.unwrap_or(0)));
    let end = only.map_or(cases, |only| only + 1);
    let failed = runtime.block_on(async {
        let lanes = (0..LANES).map(|_| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
                let mut failed = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return failed;
                    }
                    failed.extend(case(number, &listener).await.err());
                }
            })
        });
        let mut failed = Vec::new();
        for lane in lanes.collect::<Vec<_>>() {
            failed.extend(lane.await.unwrap());
        }
        failed
    });
    assert!(
        failed.is_empty(),
        "{} of {cases} cases failed:\n{}",
        failed.len(),
        failed[..failed.len().min(10)].join("\n")
    );
}

/// A peer that has sent a Close frame and a FIN reads nothing more; the other one may need longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_everything_after_a_close_frame_and_fin() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    for end in [PeerEnd::Fin, PeerEnd::Rst] {
        let large = t3_testkit::frame::raw(0x82, &vec![7; 900_000], false);
        let close = t3_testkit::frame::raw(0x88, &1011_u16.to_be_bytes(), false);
        let serve = Script {
            steps: [large, close].map(t3_testkit::peer_script::Step::Send).to_vec(),
            end,
            blocked: None,
            receive_buffer: None,
        };
        let client = Script {
            steps: Vec::new(),
            end: PeerEnd::FinAfterOther,
            blocked: Some((10_000, Duration::from_secs(4))),
            receive_buffer: Some(4_096),
        };
        let (at_client, at_serve, facts) = run(0, &client, &serve, &listener).await;
        check(&serve, &at_serve, &at_client).unwrap();
        assert!(at_client.got.len() > 100_000 && facts.down.undelivered == 0, "{end:?} {facts:?}");
    }
}

/// Counts the sessions whose delivery timed out.
#[derive(Default, Clone)]
struct Counting(Arc<AtomicU64>);

impl RelayObserver for Counting {
    fn end_started(&self, _: &Session) {}

    fn heartbeat(&self, _: u64) {}

    fn delivery_timed_out(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_never_reads_is_cut_after_the_close_timeout_and_counted() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let (mut near_client, down) = pair(&listener, 1, Some(4_096)).await;
    let (mut near_serve, up) = pair(&listener, 2, None).await;
    let counting = Counting::default();
    let timeouts = RelayTimeouts { close: Duration::from_millis(600), ..TIMEOUTS };
    let observer = counting.clone();
    let relayed = tokio::spawn(async move {
        let mut session = session();
        let shutdown = Arc::new(ShutdownSignal::default());
        let outcome = relay::run(
            &mut session,
            Box::new(Legs { down, up }),
            None,
            timeouts,
            &shutdown.subscribe(),
            &observer,
        )
        .await;
        assert_eq!(outcome, Relayed::Ended);
        session.facts
    });
    let block = vec![1; 64 << 10];
    while timeout(Duration::from_millis(500), near_serve.write(&block)).await.is_ok() {}
    let started = Instant::now();
    tcp::reset(near_serve);
    let facts = timeout(TIMEOUT, relayed).await.unwrap().unwrap();
    assert!(started.elapsed() >= timeouts.close && started.elapsed() < Duration::from_secs(5));
    assert!(facts.down.undelivered > 0, "{facts:?}");
    assert_eq!(counting.0.load(Ordering::Relaxed), 1, "{facts:?}");
    let mut got = Vec::new();
    assert!(near_client.read_to_end(&mut got).await.is_err(), "a cut stream ends with RST");
}

/// HAProxy in TCP mode, stopped on drop.
struct Haproxy {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn haproxy(to: u16) -> Result<Haproxy, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = dir.path().join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 200\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen all\n  bind 127.0.0.1:{port}\n  server one 127.0.0.1:{to}\n"
    );
    fs::write(&file, text).unwrap();
    let child = Command::new("haproxy")
        .arg("-f")
        .arg(&file)
        .arg("-db")
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let child = child.map_err(|error| format!("haproxy: {error}; apt-get install haproxy"))?;
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Ok(Haproxy { child, port, _dir: dir })
}

/// Ten cases that end with an RST of a peer that is read slowly, and HAProxy with the same peers.
#[tokio::test(flavor = "multi_thread")]
async fn ten_cases_beside_haproxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let found = haproxy(listener.local_addr().unwrap().port());
    let Some(haproxy) = prerequisite::or_skip("the comparison with HAProxy", found) else { return };
    while timeout(Duration::from_millis(200), listener.accept()).await.is_ok() {}
    let own = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let is_wanted = |seed: &u64| {
        let (client, serve) = Script::pair(*seed);
        let slow = |script: &Script| script.blocked.is_some() && script.end == PeerEnd::FinAfterOther;
        let resets = |script: &Script| script.end == PeerEnd::Rst && script.bytes().len() > 50_000;
        (slow(&client) && resets(&serve)) || (slow(&serve) && resets(&client))
    };
    let mut lines = Vec::new();
    for seed in (0..).filter(is_wanted).take(10) {
        let (client, serve) = Script::pair(seed);
        let (at_client, at_serve, _) = run(seed, &client, &serve, &own).await;
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = client.receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let address = SocketAddr::from(([127, 0, 0, 1], haproxy.port));
        let (near, far) = tokio::join!(socket.connect(address), listener.accept());
        let both = async { tokio::join!(play(near.unwrap(), &client), play(far.unwrap().0, &serve)) };
        let (client_there, serve_there) = timeout(TIMEOUT, both).await.unwrap();
        let name = |end: &ArrivedEnd| format!("{end:?}").to_lowercase();
        lines.push(format!(
            "case {seed}: to the client {} {} (HAProxy {} {}), to serve {} {} (HAProxy {} {})",
            at_client.got.len(),
            name(&at_client.arrived),
            client_there.got.len(),
            name(&client_there.arrived),
            at_serve.got.len(),
            name(&at_serve.arrived),
            serve_there.got.len(),
            name(&serve_there.arrived),
        ));
        check(&client, &at_client, &at_serve).unwrap();
        check(&serve, &at_serve, &at_client).unwrap();
    }
    eprintln!("{}", lines.join("\n"));
    assert_eq!(lines.len(), 10);
}
