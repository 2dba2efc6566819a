//! The complete path on this host: the prober, DNS over HTTPS, two breakable links, Traefik with
//! TLS, dispatch and a fake serve. Reads the prober's log lines and pages.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use t3_record::probe::{Disconnect, Phase, Reason};
use t3_testkit::{
    harness::{Process, Serve, Setup, Stack, Stream, Traefik, free_port},
    journald::Journal,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

use crate::{breakable_link::BreakableLink, certificates::Authority, doh::Doh};

pub const CLOUDFLARE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const INTERNAL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const HOST: &str = "t3.example.test";
/// The prober's timeout for a reply.
pub const ANSWER: Duration = Duration::from_secs(3);
/// Timeout of the test for an expected state.
const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Fixture {
    pub doh: Doh,
    pub cloudflare: Arc<BreakableLink>,
    pub internal: Arc<BreakableLink>,
    pub traefik: Traefik,
    stack: Stack,
    serve: Serve,
    legs: Vec<String>,
    prober: Process,
    page: SocketAddr,
    lines: Arc<Mutex<Vec<Disconnect>>>,
    dir: tempfile::TempDir,
}

impl Fixture {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path(), "authority of a test");
        let mut setup = Setup::users(1).unwrap();
        setup.trace = false;
        let stack = Stack::start(setup, Journal::private().unwrap()).unwrap();
        let serve = stack.serve("u0", &[], None).unwrap();
        let identity = authority.sign("traefik", &[HOST]);
        let traefik =
            Traefik::start_tls(dir.path(), stack.address, &identity.certificate, &identity.key).unwrap();
        let port = free_port().unwrap();
        let cloudflare = BreakableLink::open((CLOUDFLARE, port).into(), traefik.address);
        let internal = BreakableLink::open((INTERNAL, port).into(), traefik.address);
        let doh = Doh::start(authority.sign("doh", &["127.0.0.1"]).acceptor(), CLOUDFLARE).await;
        let page = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let legs = [
            format!("--host={HOST}:{port}"),
            format!("--doh=https://{}/dns-query", doh.address),
            format!("--internal={INTERNAL}:{port}"),
            format!("--serve=http://127.0.0.1:{}", serve.port),
            format!("--ca-file={}", authority.file().display()),
            "--beat=500ms".to_owned(),
            format!("--answer-timeout={}s", ANSWER.as_secs()),
            "--connect-timeout=3s".to_owned(),
            "--back-off=200ms".to_owned(),
            // High, because a busy host is slow without a fault; the slow serve of this test does
            // not reply at all.
            "--slow=2900ms".to_owned(),
        ];
        let lines = Arc::new(Mutex::new(Vec::new()));
        let collect = {
            let lines = Arc::clone(&lines);
            move |stream, line: &str| {
                if let (Stream::Stdout, Some(disconnect)) = (stream, Disconnect::from_line(line)) {
                    lines.lock().unwrap().push(disconnect);
                }
            }
        };
        let mut command = Command::new(t3_testkit::harness::find("t3-probe").unwrap());
        command.arg("run").args(&legs).arg(format!("--listen={page}")).arg("--window=5s");
        let prober = Process::start_observed(command, collect).unwrap();
        let legs = legs.to_vec();
        Self { doh, cloudflare, internal, traefik, stack, serve, legs, prober, page, lines, dir }
    }

    /// Waits until every leg is up and the window holds no earlier disconnect.
    pub async fn all_up(&self) {
        self.until("all probe legs up", async || {
            let page = self.get("/").await;
            page.contains("\nResult: last_mile\n").then_some(()).ok_or(page)
        })
        .await;
    }

    /// Waits until each of these disconnects was logged and the attribution is `place`; returns the
    /// last one.
    pub async fn expect(&mut self, disconnects: &[(&str, &str, Phase)], place: &str) -> Disconnect {
        let mut last = None;
        for (leg, reason, phase) in disconnects {
            let what = format!("a disconnect of {leg}: {reason} in {phase}");
            let found = self
                .until(&what, async || {
                    let lines = self.lines.lock().unwrap().clone();
                    let fits = |disconnect: &&Disconnect| {
                        disconnect.leg == *leg
                            && disconnect.reason.to_string() == *reason
                            && disconnect.phase == *phase
                    };
                    lines.iter().rev().find(fits).cloned().ok_or_else(|| format!("{lines:#?}"))
                })
                .await;
            last = Some(found);
        }
        self.until(&format!("attribution to {place}"), async || {
            let page = self.get("/").await;
            page.contains(&format!("\nResult: {place}\n")).then_some(()).ok_or(page)
        })
        .await;
        self.mark_lines_as_read();
        last.unwrap()
    }

    /// Changes the lines so far, so that [`Self::expect`] does not find them again; their number
    /// stays.
    fn mark_lines_as_read(&mut self) {
        let mut lines = self.lines.lock().unwrap();
        let mut kept = std::mem::take(&mut *lines);
        for disconnect in &mut kept {
            "before".clone_into(&mut disconnect.event);
            disconnect.phase = Phase::Dns;
            disconnect.detail.push_str(" (before)");
        }
        *lines = kept;
    }

    pub fn disconnects(&self) -> Vec<Disconnect> {
        self.lines.lock().unwrap().clone()
    }

    pub fn dispatch_signal(&self, signal: i32) {
        self.stack.signal_dispatch(signal).unwrap();
    }

    pub fn start_dispatch(&mut self) {
        self.stack.dispatch = None;
        self.stack.start_dispatch().unwrap();
    }

    pub fn serve_stalls(&self, time: Duration) {
        self.serve.begin(&format!("busy {}", time.as_millis())).unwrap();
    }

    /// A server with a certificate for the same name from an untrusted authority.
    pub async fn impostor(&self) -> SocketAddr {
        let dir = self.dir.path().join("impostor");
        std::fs::create_dir_all(&dir).unwrap();
        let acceptor = Authority::new(&dir, "another authority").sign("impostor", &[HOST]).acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let _ = acceptor.accept(stream).await;
                });
            }
        });
        address
    }

    /// Waits until each leg has a measured RTT: a leg is up before its first one.
    pub async fn all_measured(&self) {
        self.until("a measured RTT of each leg", async || {
            let page = self.page().await;
            let has = |leg: &&str| !page.contains(&format!("t3probe_rtt_seconds_count{{leg=\"{leg}\"}} 0\n"));
            let legs = ["cloudflare", "internal", "t3serve"];
            (!page.is_empty() && legs.iter().all(has)).then_some(()).ok_or(page)
        })
        .await;
    }

    /// Each leg has a counter of each expected reason before its first disconnect.
    pub async fn every_series_exists(&self) {
        let page = self.page().await;
        for leg in ["cloudflare", "internal", "t3serve"] {
            for reason in Reason::expected() {
                let line = format!("t3probe_disconnects_total{{leg=\"{leg}\",reason=\"{reason}\"}} 0\n");
                assert!(page.contains(&line), "{line}: {page}");
            }
        }
    }

    /// Number of measured RTTs by leg.
    pub async fn rtt_counts(&self) -> BTreeMap<String, u64> {
        let page = self.page().await;
        let counts = page.lines().filter_map(|line| {
            let (leg, count) = line.strip_prefix("t3probe_rtt_seconds_count{leg=\"")?.split_once("\"} ")?;
            Some((leg.to_owned(), count.parse().ok()?))
        });
        let counts: BTreeMap<String, u64> = counts.collect();
        assert_eq!(counts.keys().collect::<Vec<_>>(), ["cloudflare", "internal", "t3serve"]);
        counts
    }

    /// Each counter of disconnects is the number of their log lines.
    pub async fn counters_are_the_lines(&self) {
        let page = self.page().await;
        let mut logged = BTreeMap::new();
        for disconnect in self.disconnects() {
            *logged.entry((disconnect.leg, disconnect.reason.to_string())).or_insert(0_u64) += 1;
        }
        let counted = page.lines().filter_map(|line| {
            let (labels, count) =
                line.strip_prefix("t3probe_disconnects_total{leg=\"")?.split_once("\"} ")?;
            let (leg, reason) = labels.split_once("\",reason=\"")?;
            Some(((leg.to_owned(), reason.to_owned()), count.parse().ok()?))
        });
        let counted: BTreeMap<_, u64> = counted.filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, logged);
        for leg in ["cloudflare", "internal", "t3serve"] {
            assert!(page.contains(&format!("t3probe_connected{{leg=\"{leg}\"}} 1\n")), "{page}");
            let disconnected = logged.keys().any(|(of, _)| of == leg);
            let never = page.contains(&format!("t3probe_last_disconnect_timestamp{{leg=\"{leg}\"}} 0\n"));
            assert_eq!(never, !disconnected, "{leg}: {page}");
        }
    }

    /// Output of a successful `t3-probe once` with the legs of the prober and these arguments.
    async fn once(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(t3_testkit::harness::find("t3-probe").unwrap());
        command.arg("once").args(&self.legs).args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// `t3-probe once` with healthy legs prints a table and the attribution, as text and as JSON.
    pub async fn once_is_clean(&self) {
        let legs = ["cloudflare", "internal", "t3serve"];
        let text = self.once(&[]).await;
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 6, "{text}");
        for (row, leg) in rows[1..].iter().zip(legs) {
            assert!(row.starts_with(leg) && row.contains(" clean "), "{text}");
        }
        assert!(rows[1].contains("tls ") && rows[1].contains("upgrade "), "{text}");
        assert!(rows[4].ends_with(": cloudflare, internal and t3serve are clean."), "{text}");
        assert!(rows[5].starts_with("Next: "), "{text}");

        let report: serde_json::Value = serde_json::from_str(&self.once(&["--json"]).await).unwrap();
        assert_eq!((&report["schema"], &report["result"]), (&1.into(), &"last_mile".into()), "{report}");
        assert_eq!(
            (&report["text"], &*format!("Next: {}", report["next"].as_str().unwrap())),
            (&rows[4].into(), rows[5])
        );
        for (found, leg) in report["legs"].as_array().unwrap().iter().zip(legs) {
            assert_eq!((&found["leg"], &found["state"]), (&leg.into(), &"clean".into()), "{report}");
            assert!(found["answer_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{report}");
        }
        let phases = report["legs"][0]["phases"].as_array().unwrap().iter().map(|one| &one["phase"]);
        assert_eq!(phases.collect::<Vec<_>>(), ["dns", "tcp", "tls", "upgrade"], "{report}");
    }

    pub async fn page(&self) -> String {
        let page = self.get("/metrics").await;
        page.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    async fn get(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(self.page).await else { return String::new() };
        let request = format!("GET {path} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn until<T>(&self, what: &str, check: impl AsyncFn() -> Result<T, String>) -> T {
        let begun = Instant::now();
        loop {
            match check().await {
                Ok(found) => return found,
                Err(instead) if begun.elapsed() > TIMEOUT => {
                    panic!("timed out waiting for {what}; got\n{instead}\n{}", self.prober.stderr());
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}
