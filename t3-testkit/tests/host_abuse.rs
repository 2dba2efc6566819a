//! Floods of the real program by one user and by an anonymous local process, next to HAProxy with
//! `maxconn` under the same floods: another user's heartbeat, and a new WebSocket of hers.
//!
//! Needs `cargo xtask build` and root, because the anonymous process has another uid. CI
//! must have HAProxy. Prints a table; heartbeats have generous limits, absolute and relative to
//! HAProxy, because the floods share the CPUs with everything else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, its helpers too"
)]

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use t3_testkit::{
    frame::{self, opcode},
    handshake,
    harness::{self, Process},
    prerequisite,
};

/// Variable that makes this program the anonymous process.
const FLOOD: &str = "T3_TEST_FLOOD";
const NOBODY: u32 = 65_534;
const MEASURE: Duration = Duration::from_secs(4);
const PING: Duration = Duration::from_millis(10);
/// Most that alice's heartbeat may take at p99, as a multiple of the same through HAProxy and more:
/// t3-dispatch is not optimised here.
const MOST_RATIO: u32 = 4;
const SPARE: Duration = Duration::from_millis(25);
/// Descriptors of the proxies. Few, so that a flood reaches the limit.
const DESCRIPTORS: usize = 1024;
/// Requests of bob without a response.
const SLOW: usize = 360;
/// Downloads of bob that he does not read.
const UNREAD: usize = 40;

/// serve of everybody: echoes WebSocket messages, leaves `/slow` unanswered, sends `/big` without
/// end.
fn serve(listener: TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        thread::Builder::new().stack_size(64 << 10).spawn(move || answer(&mut stream)).unwrap();
    }
}

fn answer(stream: &mut TcpStream) -> Option<()> {
    loop {
        let head = head(stream)?;
        if head.starts_with("GET /ws") {
            stream.write_all(handshake::response(handshake::KEY).as_bytes()).ok()?;
            let mut message = [0; 6 + 32];
            loop {
                stream.read_exact(&mut message).ok()?;
                stream.write_all(&frame::from_server(opcode::BINARY, &[0; 32])).ok()?;
            }
        } else if head.starts_with("GET /slow") {
            // Until the proxy closes the connection.
            stream.read_exact(&mut [0]).ok()?;
        } else if head.starts_with("GET /big") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n").ok()?;
            loop {
                stream.write_all(&[0; 16 << 10]).ok()?;
            }
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()?;
        }
    }
}

fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn connect(proxy: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&proxy, Duration::from_secs(3)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

fn get(proxy: SocketAddr, path: &str, user: &str) -> Option<TcpStream> {
    let mut stream = connect(proxy)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: {user}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    Some(stream)
}

fn open(proxy: SocketAddr) -> Option<TcpStream> {
    let mut stream = connect(proxy)?;
    let request = handshake::request("/ws", [("X-Authentik-Username", "alice")]);
    stream.write_all(request.as_bytes()).ok()?;
    head(&mut stream)?.starts_with("HTTP/1.1 101 ").then_some(stream)
}

/// Heartbeats of one session, and attempts to open another one.
#[derive(Debug)]
struct Measured {
    p50: Duration,
    p99: Duration,
    opened: usize,
    refused: usize,
}

/// Measures alice's session for a while. Attempts to open another one can take seconds, so they
/// have a thread of their own.
fn measure(proxy: SocketAddr, session: &mut TcpStream) -> Measured {
    let ping = frame::from_client(opcode::BINARY, &[0; 32]);
    let until = Instant::now() + MEASURE;
    thread::scope(|scope| {
        let opening = scope.spawn(|| {
            let (mut opened, mut refused) = (0, 0);
            while Instant::now() < until {
                if open(proxy).is_some() {
                    opened += 1;
                } else {
                    refused += 1;
                }
                thread::sleep(Duration::from_millis(500));
            }
            (opened, refused)
        });
        let mut rtts = Vec::new();
        while Instant::now() < until {
            let sent = Instant::now();
            session.write_all(&ping).unwrap();
            session.read_exact(&mut [0; 2 + 32]).expect("alice's session was cut off");
            rtts.push(sent.elapsed());
            thread::sleep(PING);
        }
        rtts.sort_unstable();
        let (opened, refused) = opening.join().unwrap();
        Measured { p50: rtts[rtts.len() / 2], p99: rtts[rtts.len() * 99 / 100], opened, refused }
    })
}

/// bob: requests without a response, downloads that he does not read, and many requests.
struct Bob {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
    refused: Arc<AtomicU64>,
    _held: Vec<TcpStream>,
}

impl Bob {
    fn start(proxy: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicU64::new(0));
        let mut held: Vec<_> = (0..SLOW).filter_map(|_| get(proxy, "/slow", "bob")).collect();
        held.extend((0..UNREAD).filter_map(|_| get(proxy, "/big", "bob")));
        let flood = |()| {
            let (stop, refused) = (Arc::clone(&stop), Arc::clone(&refused));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = get(proxy, "/", "bob").and_then(|mut stream| head(&mut stream));
                    if answer.is_none_or(|head| !head.starts_with("HTTP/1.1 200 ")) {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        let threads = std::iter::repeat_n((), 4).map(flood).collect();
        Self { stop, threads, refused, _held: held }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.refused.load(Ordering::Relaxed)
    }
}

/// Starts this program as the anonymous process.
fn anonymous(proxy: SocketAddr, dir: &Path) -> Child {
    let program = dir.join("flood");
    if !program.exists() {
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    Command::new(program)
        .args(["--ignored", "--exact", "anonymous_flood"])
        .env(FLOOD, proxy.to_string())
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The anonymous process: as many silent connections as it gets, and invalid requests.
#[test]
#[ignore = "the body of the child process of the test below; run by it"]
fn anonymous_flood() {
    let proxy: SocketAddr = std::env::var(FLOOD).expect("run by the test below").parse().unwrap();
    let mut silent = Vec::new();
    loop {
        if let Ok(stream) = connect_untrusted(proxy) {
            if silent.len() < 800 {
                silent.push(stream);
                continue;
            }
            let mut stream = stream;
            let _ = stream.write_all(b"GARBAGE\r\n\r\n");
            let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
            let _ = stream.read(&mut [0; 256]);
        }
    }
}

/// Connects from an address that is not trusted either.
fn connect_untrusted(proxy: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into())?;
    socket.connect(&proxy.into())?;
    Ok(socket.into())
}

/// A proxy with few descriptors.
fn limited(program: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    let script = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\"");
    command.args(["-c", &script]).arg(program);
    command
}

fn accepts(proxy: SocketAddr) {
    let until = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(proxy).is_err() {
        assert!(Instant::now() < until, "{proxy} does not accept");
        thread::sleep(Duration::from_millis(20));
    }
}

fn free() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, harness::free_port().unwrap()))
}

struct Dispatch {
    process: Process,
    address: SocketAddr,
    metrics: SocketAddr,
    table: PathBuf,
    serve: u16,
}

impl Dispatch {
    fn start(serve: u16, dir: &Path) -> Self {
        let (address, metrics, table) = (free(), free(), dir.join("table.json"));
        fs::write(&table, Self::table(serve, &["alice", "bob"])).unwrap();
        let mut command = limited(&harness::find("t3-dispatch").unwrap());
        command
            .args(["serve", "--config", "/dev/null", "--log", "stderr", "--no-pairing"])
            .args(["--trace-socket", "/nonexistent"])
            .args(["--listen", &address.to_string(), "--metrics-listen", &metrics.to_string()])
            .arg("--table")
            .arg(&table);
        let process = Process::start(command).unwrap();
        accepts(address);
        Self { process, address, metrics, table, serve }
    }

    fn table(port: u16, users: &[&str]) -> String {
        let entry = |(index, user): (usize, &&str)| {
            // One port cannot belong to two users.
            let (user, port) = (*user, if index == 0 { port } else { port + u16::try_from(index).unwrap() });
            // The serves are in this process, of root.
            format!(r#""{user}": {{"os_user": "{user}", "uid": 0, "port": {port}}}"#)
        };
        format!("{{{}}}", users.iter().enumerate().map(entry).collect::<Vec<_>>().join(", "))
    }

    fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: m\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let line =
            page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}\n{page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// A changed table is used.
    fn reloads(&self) {
        fs::write(&self.table, Self::table(self.serve, &["alice", "bob", "carl"])).unwrap();
        let until = Instant::now() + Duration::from_secs(15);
        while self.metric("t3_dispatch_table_logins ") < 3.0 {
            assert!(Instant::now() < until, "the table was not reloaded: {}", self.process.stderr());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn haproxy(serve: u16, dir: &Path) -> Result<(Process, SocketAddr), String> {
    let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]
        .iter()
        .map(Path::new)
        .find(|path| path.is_file())
        .ok_or("no haproxy; apt-get install haproxy")?;
    let address = free();
    let configuration = format!(
        "global\n    maxconn {}\ndefaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    \
         timeout server 60s\n    timeout http-request 10s\n    timeout tunnel 1h\n\
         frontend browsers\n    bind {address}\n    \
         http-request deny status 403 unless {{ req.hdr(x-authentik-username) -m found }}\n    \
         use_backend bob if {{ req.hdr(x-authentik-username) -m str bob }}\n    default_backend alice\n\
         backend alice\n    server one 127.0.0.1:{serve}\nbackend bob\n    server one 127.0.0.1:{}\n",
        DESCRIPTORS / 2 - 20,
        serve + 1
    );
    let path = dir.join("haproxy.cfg");
    fs::write(&path, configuration).unwrap();
    let mut command = limited(program);
    command.args(["-db", "-f"]).arg(path);
    let process = Process::start(command).unwrap();
    accepts(address);
    Ok((process, address))
}

/// Two adjacent free ports, with the serves of alice and bob.
fn serves() -> u16 {
    loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let Some(next) = port.checked_add(1) else { continue };
        if let Ok(second) = TcpListener::bind((Ipv4Addr::LOCALHOST, next)) {
            thread::spawn(move || serve(first));
            thread::spawn(move || serve(second));
            return port;
        }
    }
}

/// Quiet, under bob's flood, and under the anonymous one.
fn three_phases(
    name: &str,
    proxy: SocketAddr,
    dir: &Path,
    during: impl Fn(&str),
) -> Vec<(&'static str, Measured)> {
    let mut session = open(proxy).expect("a quiet proxy opens a WebSocket");
    let mut rows = vec![("quiet", measure(proxy, &mut session))];
    let bob = Bob::start(proxy);
    during("bob");
    rows.push(("bob", measure(proxy, &mut session)));
    let refused = bob.stop();
    let mut child = anonymous(proxy, dir);
    thread::sleep(Duration::from_secs(1));
    during("anonymous");
    rows.push(("anonymous", measure(proxy, &mut session)));
    assert!(child.try_wait().unwrap().is_none(), "{name}: the anonymous process has ended");
    child.kill().unwrap();
    child.wait().unwrap();
    for (flood, measured) in &rows {
        let Measured { p50, p99, opened, refused } = measured;
        eprintln!("{name:12} {flood:10} p50 {p50:>9.1?} p99 {p99:>9.1?}, {opened} opened, {refused} refused");
    }
    eprintln!("{name:12} bob's requests without 200: {refused}");
    rows
}

#[test]
fn one_user_or_an_anonymous_process_cannot_starve_another_user() {
    if prerequisite::or_skip("host_abuse", prerequisite::root()).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let port = serves();
    // Its new sessions may be refused: maxconn knows no users.
    let beside = prerequisite::or_skip("the comparison with HAProxy", haproxy(port, dir.path()))
        .map(|(_process, address)| three_phases("haproxy", address, dir.path(), |_| {}));
    let dispatch = Dispatch::start(port, dir.path());
    let rows = three_phases("t3-dispatch", dispatch.address, dir.path(), |flood| {
        if flood == "anonymous" {
            dispatch.reloads();
        }
    });
    for (flood, measured) in &rows {
        assert!(measured.opened > 0 && measured.refused == 0, "{flood}: {measured:?}");
        assert!(measured.p99 < Duration::from_millis(500), "{flood}: {measured:?}");
    }
    for ((flood, own), (_, haproxy)) in rows.iter().zip(beside.iter().flatten()) {
        let most = haproxy.p99 * MOST_RATIO + SPARE;
        assert!(own.p99 <= most, "{flood}: p99 {:?}, of HAProxy {:?}", own.p99, haproxy.p99);
    }
    // One uid gets a part of the places of all untrusted peers.
    for reason in ["user_requests", "address_connections"] {
        let refused = dispatch.metric(&format!("t3_dispatch_refused_total{{reason=\"{reason}\"}}"));
        assert!(refused > 0.0, "{reason}");
    }
    let lines = dispatch.process.stderr().lines().count();
    assert!(lines < 150, "{lines} log lines:\n{}", dispatch.process.stderr());
}
