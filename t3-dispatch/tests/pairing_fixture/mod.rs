//! Fixture: t3-dispatch with pairing, in this process, between raw HTTP clients and the fake serve;
//! the mint is a script of the test. All log lines are captured, and none may contain a credential
//! or a session.
#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use clap::Parser;
use t3_dispatch::{
    cli::Cli, config, metrics, process::run, routing::table::Table, server::app::App,
    sys::socket_owner::SocketOwners,
};
use t3_journal::{Sink, Writer};
use t3_testkit::{
    fake_serve::{self, CREDENTIAL_PREFIX, Opening},
    harness::free_port,
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tracing_subscriber::{Layer, filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Header lines of a browser's navigation.
pub const NAVIGATION: &str = "Sec-Fetch-Dest: document\r\nUser-Agent: Firefox\r\n";

/// Texts that no log line may contain: credentials, cookies, and the ticket and the token of the
/// tests.
const SECRETS: [&str; 5] = [CREDENTIAL_PREFIX, "t3_session=", "session-1", "TICKET-", "TOKEN-"];

/// Prints a new credential.
pub const MINT: &str = r#"printf '{"credential":"%s"}\n' "$CREDENTIAL""#;

/// Captured log of this program.
static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();

struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Captures log lines in the journald format, of all levels and crates.
fn capture_log() -> &'static Arc<Mutex<Vec<u8>>> {
    LOG.get_or_init(|| {
        let log = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&log);
        let format = tracing_subscriber::fmt::layer()
            .with_target(false)
            .without_time()
            .with_level(false)
            .with_ansi(false)
            .with_writer(move || Log(Arc::clone(&kept)));
        tracing_subscriber::registry().with(format.with_filter(LevelFilter::TRACE)).try_init().unwrap();
        log
    })
}

fn log() -> String {
    let bytes = capture_log().lock().unwrap_or_else(PoisonError::into_inner).clone();
    String::from_utf8(bytes).unwrap()
}

/// HTTP response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// Returns the session cookie that it sets.
    pub fn session(&self) -> String {
        let cookies = self.fields("set-cookie");
        let session = cookies.iter().find(|cookie| cookie.starts_with("t3_session=")).unwrap();
        session.split(';').next().unwrap().to_owned()
    }

    /// Returns whether it is a 302 to / that sets a session and is not cacheable.
    pub fn is_paired(&self) -> bool {
        let paired = self.status == 302;
        if paired {
            assert_eq!(self.fields("location"), ["/"]);
            assert_eq!(self.fields("cache-control"), ["no-store"]);
            self.session();
        }
        paired
    }
}

pub struct Fixture {
    app: Arc<App>,
    pub address: SocketAddr,
    /// User with a serve; unique in this program, which identifies its log lines.
    pub user: String,
    /// Port of its serve.
    pub port: u16,
    pub dir: tempfile::TempDir,
    journald: UnixDatagram,
}

/// Returns a user name that no other test of this program has.
fn fresh_user() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    format!("user{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Fixture {
    /// Starts with a mint script, which has `$CREDENTIAL` (new each time), `$DIR` and the user as
    /// `$1`.
    pub async fn new(mint: &str, options: &[&str]) -> Self {
        Self::with_users(1, mint, options).await
    }

    /// Starts with several users, each with a fake serve: `user`, `user-1`, `user-2`...
    pub async fn with_users(users: usize, mint: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports = (0..users).map(|number| start_serve(&dir.path().join(format!("serve-{number}.sock"))));
        let ports = ports.collect::<Vec<_>>();
        Self::with_serves(&ports, dir, mint, options).await
    }

    /// Starts with the mint behind a socket, like t3-mint.socket: one `t3-mint-answer` per
    /// connection, which is its standard input and output.
    pub async fn behind_socket(mint: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = start_serve(&dir.path().join("serve-0.sock"));
        let path = dir.path().join("mint.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let command = mint_command(dir.path(), mint);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let request = OwnedFd::from(stream.unwrap());
                let mut program = Command::new(env!("CARGO_BIN_EXE_t3-mint-answer"));
                program.args(["--command", &command]).stderr(Stdio::null());
                program.stdout(request.try_clone().unwrap()).stdin(request);
                program.status().unwrap();
            }
        });
        Self::with_serves(&[port], dir, mint, &["--mint-socket", path.to_str().unwrap()]).await
    }

    /// Starts with serves that the test controls.
    pub async fn with_serves(ports: &[u16], dir: tempfile::TempDir, mint: &str, options: &[&str]) -> Self {
        capture_log();
        let user = fresh_user();
        let command = mint_command(dir.path(), mint);
        let trace = dir.path().join("evidence.sock").display().to_string();
        let mut all = vec!["t3-dispatch", "serve", "--trace-socket", &trace];
        if !options.contains(&"--mint-command") {
            all.extend(["--mint-command", &command]);
        }
        let parsed = Cli::parse_from(all.iter().chain(options)).command.options();
        let own_uid = rustix::process::geteuid().as_raw();
        let table: serde_json::Map<_, _> = ports
            .iter()
            .enumerate()
            .map(|(number, port)| (Self::name(&user, number), port))
            .map(|(user, port)| {
                (user.clone(), serde_json::json!({ "os_user": user, "port": port, "uid": own_uid }))
            })
            .collect();
        let table = Table::parse(&serde_json::Value::Object(table).to_string(), Path::new("test")).unwrap();
        let journald = dir.path().join("journald");
        let kept = UnixDatagram::bind(&journald).unwrap();
        let writer = Writer::start_with("t3-dispatch", Sink::Journald, &journald, 1000).unwrap();
        let mut parsed = parsed;
        parsed.trust.trusted_user.push(rustix::process::geteuid().as_raw().to_string());
        let trust = config::trust::load(&parsed.trust).unwrap();
        let app = run::assemble(&parsed, table, trust, writer, None, SocketOwners::new(None), None);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        run::start(&app, vec![listener]);
        Self { app, address, user, port: ports[0], dir, journald: kept }
    }

    fn name(user: &str, number: usize) -> String {
        if number == 0 { user.to_owned() } else { format!("{user}-{number}") }
    }

    /// Returns the name of a user by number.
    pub fn user(&self, number: usize) -> String {
        Self::name(&self.user, number)
    }

    /// Sends a request with the user's identity and these header lines.
    pub async fn request(&self, user: &str, line: &str, headers: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        let request =
            format!("{line} HTTP/1.1\r\nHost: t3.test\r\nX-Authentik-Username: {user}\r\n{headers}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }

    /// Sends a request and returns the response.
    pub async fn send(&self, line: &str, headers: &str) -> Answer {
        let headers = format!("{headers}Connection: close\r\n");
        answer(self.request(&self.user, line, &headers).await).await
    }

    /// Navigates to /.
    pub async fn visit(&self) -> Answer {
        self.send("GET /", NAVIGATION).await
    }

    /// Navigates with a session.
    pub async fn visit_with(&self, session: &str) -> Answer {
        self.send("GET /some/page", &format!("{NAVIGATION}Cookie: {session}\r\n")).await
    }

    /// Sends a command to the fake serve.
    pub fn order(&self, order: &str) {
        let mut stream = UnixStream::connect(self.dir.path().join("serve-0.sock")).unwrap();
        writeln!(stream, "{order}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert_eq!(answer, "ok\n", "{order}");
    }

    /// Returns the paths below /api/auth that serve received.
    pub async fn auth_requests(&self) -> Vec<String> {
        let mut client = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        client.write_all(b"GET /standin/asked HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
        answer(client).await.body.lines().map(str::to_owned).collect()
    }

    /// Returns the users for whom the mint has run.
    pub fn mints(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    pub async fn until_mints(&self, count: usize) {
        self.until(|fixture| fixture.mints().len() >= count).await;
    }

    pub async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(TIMEOUT, wait).await.expect("timed out waiting for the condition");
    }

    /// Returns the pairings by outcome, `outcome=count` for those above 0.
    pub fn counted(&self) -> Vec<String> {
        let page = metrics::page::render(&self.app.metrics, &self.app.gauges()).unwrap();
        page.lines()
            .filter_map(|line| line.strip_prefix("t3_dispatch_pairings_total{outcome=\"")?.split_once("\"} "))
            .filter(|(_, count)| *count != "0")
            .map(|(outcome, count)| format!("{outcome}={count}"))
            .collect()
    }

    /// Releases mints that wait for `$DIR/go`.
    pub fn go(&self) {
        fs::write(self.dir.path().join("go"), "").unwrap();
    }

    /// Returns the log lines that contain the first user and this text.
    pub fn lines(&self, word: &str) -> Vec<String> {
        let user = format!("user={}", self.user);
        let names_user = |line: &&str| line.split(' ').any(|field| field == user);
        log().lines().filter(names_user).filter(|line| line.contains(word)).map(str::to_owned).collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut lines = log();
        self.journald.set_nonblocking(true).unwrap();
        let mut record = vec![0; 65536];
        while let Ok(length) = self.journald.recv(&mut record) {
            lines.push_str(&String::from_utf8_lossy(&record[..length]));
        }
        for line in lines.lines() {
            for secret in SECRETS {
                assert!(!line.contains(secret), "a secret in the log: {line}");
            }
        }
    }
}

/// Starts a fake serve in a thread; returns its port.
fn start_serve(control: &Path) -> u16 {
    let port = free_port().unwrap();
    let options = fake_serve::Options {
        first_thread_ends: false,
        port,
        ip: std::net::Ipv4Addr::LOCALHOST.into(),
        backlog: 1024,
        control: Some(control.to_owned()),
        threads: 1,
        opening: Opening::Accept,
        no_listen: false,
        deflate: false,
        user: "standin".to_owned(),
    };
    std::thread::spawn(move || fake_serve::run(&options));
    wait::until("a fake serve", TIMEOUT, || {
        let listens = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        (listens && UnixStream::connect(control).is_ok()).then_some(())
    })
    .unwrap();
    port
}

/// Returns a command that runs a script with `sh`, so that a file just written is not executed
/// (ETXTBSY).
fn mint_command(dir: &Path, script: &str) -> String {
    let path: PathBuf = dir.join("mint.sh");
    let dir = dir.display();
    let text = format!(
        "DIR='{dir}'\necho \"$1\" >> \"$DIR/calls\"\nCREDENTIAL={CREDENTIAL_PREFIX}$1-$$\nuntil_go() {{ until [ -e \"$DIR/go\" ]; do sleep 0.02; done; }}\n{script}\n"
    );
    fs::write(&path, text).unwrap();
    format!("/bin/sh '{}'", path.display())
}

/// Reads a response to the end of the connection.
pub async fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await.expect("no answer").unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    let status = status.parse().unwrap_or_else(|_| panic!("no HTTP: {text:?}"));
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
