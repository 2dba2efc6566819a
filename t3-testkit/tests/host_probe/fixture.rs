//! Everything between the prober and serve, on this machine: DNS over HTTPS, two stretches that can
//! be broken, Traefik with TLS, dispatch, a stand-in for serve. And the prober itself, whose lines
//! and pages are read as an operator would.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use t3_record::probe::{Disconnect, Phase};
use t3_testkit::{
    harness::{Process, Serve, Setup, Stack, Stream, Traefik, free_port},
    journald::Journal,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

use crate::{breakable_link::Gate, certificates::Authority, doh::Doh};

pub const CLOUDFLARE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const INTERNAL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const HOST: &str = "t3.example.test";
/// The prober's patience with an answer here.
pub const ANSWER: Duration = Duration::from_secs(3);
/// Ours with the prober.
const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Fixture {
    pub doh: Doh,
    pub cloudflare: Arc<Gate>,
    pub internal: Arc<Gate>,
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
        let cloudflare = Gate::open((CLOUDFLARE, port).into(), traefik.address);
        let internal = Gate::open((INTERNAL, port).into(), traefik.address);
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
            // Emulation of a slow serve is tested by one that does not answer: a busy machine is
            // slow without a fault.
            "--slow=2900ms".to_owned(),
        ];
        let lines = Arc::new(Mutex::new(Vec::new()));
        let hear = {
            let lines = Arc::clone(&lines);
            move |stream, line: &str| {
                if let (Stream::Stdout, Some(death)) = (stream, Disconnect::from_line(line)) {
                    lines.lock().unwrap().push(death);
                }
            }
        };
        let mut command = Command::new(t3_testkit::harness::find("t3-probe").unwrap());
        command.arg("run").args(&legs).arg(format!("--listen={page}")).arg("--window=5s");
        let prober = Process::start_observed(command, hear).unwrap();
        let legs = legs.to_vec();
        Self { doh, cloudflare, internal, traefik, stack, serve, legs, prober, page, lines, dir }
    }

    /// Waits until every leg is up and the window has forgotten what was.
    pub async fn well(&self) {
        self.until("all legs to be well", async || {
            let page = self.get("/").await;
            page.contains("\nlast_mile: ").then_some(()).ok_or(page)
        })
        .await;
    }

    /// Waits until each of these deaths was told since the call, and the legs together say `place`.
    /// Returns the last of them.
    pub async fn expect(&mut self, deaths: &[(&str, &str, Phase)], place: &str) -> Disconnect {
        let mut last = None;
        for (leg, reason, phase) in deaths {
            let what = format!("{leg} to die of {reason} in {phase}");
            let found = self
                .until(&what, async || {
                    let lines = self.lines.lock().unwrap().clone();
                    let fits = |death: &&Disconnect| {
                        death.leg == *leg && death.reason.to_string() == *reason && death.phase == *phase
                    };
                    lines.iter().rev().find(fits).cloned().ok_or_else(|| format!("{lines:#?}"))
                })
                .await;
            last = Some(found);
        }
        self.until(&format!("the legs to say {place}"), async || {
            let page = self.get("/").await;
            page.contains(&format!("\n{place}: ")).then_some(()).ok_or(page)
        })
        .await;
        self.forget();
        last.unwrap()
    }

    /// Deaths of the past count no more; the sums stay.
    fn forget(&mut self) {
        let mut lines = self.lines.lock().unwrap();
        let mut kept = std::mem::take(&mut *lines);
        for death in &mut kept {
            // Counted still, found no more.
            "told ".clone_into(&mut death.event);
            death.phase = Phase::Dns;
            death.detail.push_str(" (before)");
        }
        *lines = kept;
    }

    pub fn deaths(&self) -> Vec<Disconnect> {
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

    /// Somebody with a certificate for the same name from an authority that nobody knows.
    pub async fn impostor(&self) -> SocketAddr {
        let dir = self.dir.path().join("impostor");
        std::fs::create_dir_all(&dir).unwrap();
        let acceptor = Authority::new(&dir, "somebody else").sign("impostor", &[HOST]).acceptor();
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

    /// Echoes and answers so far, by leg.
    pub async fn beats(&self) -> BTreeMap<String, u64> {
        let page = self.page().await;
        let counts = page.lines().filter_map(|line| {
            let (leg, count) = line.strip_prefix("t3probe_rtt_seconds_count{leg=\"")?.split_once("\"} ")?;
            Some((leg.to_owned(), count.parse().ok()?))
        });
        let counts: BTreeMap<String, u64> = counts.collect();
        assert_eq!(counts.keys().collect::<Vec<_>>(), ["cloudflare", "internal", "t3serve"]);
        counts
    }

    /// Each counter is the number of lines that told of it.
    pub async fn counters_are_the_lines(&self) {
        let page = self.page().await;
        let mut told = BTreeMap::new();
        for death in self.deaths() {
            *told.entry((death.leg, death.reason.to_string())).or_insert(0_u64) += 1;
        }
        let counted = page.lines().filter_map(|line| {
            let (labels, count) =
                line.strip_prefix("t3probe_disconnects_total{leg=\"")?.split_once("\"} ")?;
            let (leg, reason) = labels.split_once("\",reason=\"")?;
            Some(((leg.to_owned(), reason.to_owned()), count.parse().ok()?))
        });
        assert_eq!(counted.collect::<BTreeMap<_, u64>>(), told);
        for leg in ["cloudflare", "internal", "t3serve"] {
            assert!(page.contains(&format!("t3probe_connected{{leg=\"{leg}\"}} 1\n")), "{page}");
            let died = told.keys().any(|(of, _)| of == leg);
            let timestamp = page.contains(&format!("t3probe_last_disconnect_timestamp{{leg=\"{leg}\"}} "));
            assert_eq!(timestamp, died, "{leg}: {page}");
        }
    }

    /// `t3-probe once`, all being well.
    pub async fn once_says(&self, place: &str) {
        let mut command = Command::new(t3_testkit::harness::find("t3-probe").unwrap());
        command.arg("once").args(&self.legs);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rows: Vec<&str> = text.lines().collect();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((place, rows.len()), ("last_mile", 5), "{text}");
        for (row, leg) in rows[1..].iter().zip(["cloudflare", "internal", "t3serve"]) {
            assert!(row.starts_with(leg) && row.contains(" clean "), "{text}");
        }
        assert!(rows[1].contains("tls ") && rows[1].contains("upgrade "), "{text}");
        assert!(rows[4].ends_with("clean: the last mile: between the user and Cloudflare"), "{text}");
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

    async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Result<T, String>) -> T {
        let begun = Instant::now();
        loop {
            match look().await {
                Ok(found) => return found,
                Err(instead) if begun.elapsed() > TIMEOUT => {
                    panic!("waited for {what}; there is\n{instead}\n{}", self.prober.stderr());
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}
