//! Memory of the real program at each of its limits: resident memory and socket buffers per
//! connection, times the default limit, stay below `MemoryMax=` of the unit.
//!
//! Needs `cargo xtask build`, and `ss` of iproute2. Prints a table.
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
    process::Command,
    thread,
    time::{Duration, Instant},
};

use t3_testkit::{
    handshake,
    harness::{self, NO_LIMITS, Process},
};

/// Connections of each kind.
const COUNT: usize = 400;
const CONNECTIONS: u64 = 4096;
const SESSIONS: u64 = 8192;
/// Size of a large head, below the limit of 64 KiB.
const LARGE: usize = 60_000;

/// serve: opens a WebSocket and sends without end on `/ws-flood`, nothing on `/ws`; `/big` is a
/// download, everything else a small response.
fn serve(listener: TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        thread::Builder::new().stack_size(128 << 10).spawn(move || answer(&mut stream)).unwrap();
    }
}

fn answer(stream: &mut TcpStream) -> Option<()> {
    loop {
        let head = head(stream)?;
        let floods = head.starts_with("GET /ws-flood") || head.starts_with("GET /big");
        if head.starts_with("GET /ws") {
            stream.write_all(handshake::response(handshake::KEY).as_bytes()).ok()?;
        } else if floods {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n").ok()?;
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()?;
            continue;
        }
        if floods {
            // Frames of 64 KiB without a mask; a download has no format.
            let frame = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[0; 64 << 10]].concat();
            loop {
                stream.write_all(&frame).ok()?;
            }
        }
        stream.read_exact(&mut [0]).ok()?;
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

struct Dispatch {
    process: Process,
    address: SocketAddr,
    serve: u16,
    _dir: tempfile::TempDir,
}

impl Dispatch {
    /// Starts a process, so that no measurement includes memory that an earlier one left.
    fn start(serve: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("table.json");
        let uid = rustix::process::geteuid().as_raw();
        fs::write(&table, format!(r#"{{"ann": {{"os_user": "ann", "uid": {uid}, "port": {serve}}}}}"#))
            .unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, harness::free_port().unwrap()));
        let mut command = Command::new(harness::find("t3-dispatch").unwrap());
        command
            .args(["serve", "--config", "/dev/null", "--log", "stderr", "--no-pairing"])
            .args([
                "--trusted-user",
                &uid.to_string(),
                "--metrics-listen",
                "off",
                "--trace-socket",
                "/nonexistent",
            ])
            .args([
                "--header-timeout",
                "120s",
                "--user-timeout",
                "0s",
                "--listen",
                &address.to_string(),
                "--table",
            ])
            .arg(&table)
            .args(NO_LIMITS);
        let process = Process::start(command).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "{}", process.stderr());
            thread::sleep(Duration::from_millis(20));
        }
        Self { process, address, serve, _dir: dir }
    }

    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// Memory of its sockets: received and written bytes, and what the kernel holds in advance.
    fn sockets(&self) -> u64 {
        let (down, up) = (format!(":{}", self.address.port()), format!(":{}", self.serve));
        let filter = ["(", "sport", "=", &down, "or", "dport", "=", &up, ")"];
        let output = Command::new("ss").arg("-tmnH").args(filter).output().expect("ss of iproute2");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let buffers = text.split("skmem:(").skip(1).map(|rest| rest.split(')').next().unwrap());
        let field = |buffers: &str, name: &str| -> u64 {
            let values = buffers.split(',').filter_map(|value| value.strip_prefix(name)?.parse::<u64>().ok());
            values.sum()
        };
        buffers.map(|buffers| field(buffers, "r") + field(buffers, "w") + field(buffers, "f")).sum()
    }

    fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }
}

fn request(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\n{more}\r\n")
}

/// Returns the memory per connection in bytes: of the process, and of its sockets.
fn per_connection(serve: u16, kind: &str) -> (u64, u64) {
    let dispatch = Dispatch::start(serve);
    let (resident, sockets) = (dispatch.resident(), dispatch.sockets());
    let large = format!("X-Large: {}\r\n", "x".repeat(LARGE));
    let upgrade = |target: &str| handshake::request(target, [("X-Authentik-Username", "ann")]);
    let held: Vec<TcpStream> = (0..COUNT)
        .map(|_| match kind {
            "idle" => {
                let mut stream = dispatch.connect(&request("/", ""));
                assert!(head(&mut stream).unwrap().starts_with("HTTP/1.1 200 "));
                stream.read_exact(&mut [0; 2]).unwrap();
                stream
            }
            "unfinished head" => dispatch.connect(request("/", &large).trim_end()),
            "after a large head" => {
                let mut stream = dispatch.connect(&request("/", &large));
                assert!(head(&mut stream).unwrap().starts_with("HTTP/1.1 200 "));
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).expect("the connection does not end");
                stream
            }
            "large head, unread" => dispatch.connect(&request("/big", &large)),
            "unread download" => dispatch.connect(&request("/big", "")),
            "idle session" => {
                let mut stream = dispatch.connect(&upgrade("/ws"));
                assert!(head(&mut stream).unwrap().starts_with("HTTP/1.1 101 "));
                stream
            }
            "unread session" => {
                let mut stream = dispatch.connect(&upgrade("/ws-flood"));
                assert!(head(&mut stream).unwrap().starts_with("HTTP/1.1 101 "));
                stream
            }
            other => panic!("{other}"),
        })
        .collect();
    // Until the buffers are full.
    let mut now = 0;
    loop {
        thread::sleep(Duration::from_millis(1500));
        let before = std::mem::replace(&mut now, dispatch.resident() + dispatch.sockets());
        if now <= before + before / 50 {
            break;
        }
    }
    let each = |now: u64, before: u64| now.saturating_sub(before) / COUNT as u64;
    let measured = (each(dispatch.resident(), resident), each(dispatch.sockets(), sockets));
    drop(held);
    measured
}

/// `MemoryHigh=` or `MemoryMax=` of the unit in bytes.
fn limit(name: &str) -> u64 {
    let unit =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd/t3-dispatch.service"));
    let unit = unit.unwrap();
    let value = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).expect(name);
    let (number, shift) = match value.strip_suffix('M') {
        Some(number) => (number, 20),
        None => (value.strip_suffix('G').unwrap(), 30),
    };
    number.parse::<u64>().unwrap() << shift
}

#[test]
fn memory_at_every_limit_stays_below_that_of_the_unit() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || serve(listener));
    let (mut connection, mut session) = (0, 0);
    for (kind, bound) in [
        ("idle", 48),
        ("unfinished head", 160),
        ("after a large head", 16),
        ("large head, unread", 1024),
        ("unread download", 768),
        ("idle session", 32),
        ("unread session", 640),
    ] {
        let (resident, sockets) = per_connection(port, kind);
        eprintln!("{kind:20} {:>5} KiB resident, {:>5} KiB sockets", resident >> 10, sockets >> 10);
        assert!(resident + sockets < bound << 10, "{kind}: above {bound} KiB");
        match kind {
            "idle session" => session = resident + sockets,
            "unread session" => {}
            _ => connection = connection.max(resident + sockets),
        }
    }
    let most = CONNECTIONS * connection + SESSIONS * session;
    eprintln!(
        "{CONNECTIONS} connections of the largest kind and {SESSIONS} idle sessions: {} MiB",
        most >> 20
    );
    assert!(most < limit("MemoryHigh") && limit("MemoryHigh") < limit("MemoryMax"), "{most}");
}
