//! Memory of t3-dispatch at each of its limits: resident memory and socket buffers per connection
//! of each kind, measured with the real program, times the default limit. Compared with
//! `MemoryHigh=` and `MemoryMax=` of the unit.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use serde::Serialize;

use crate::{
    error::{Attempt, Result, TestError},
    handshake,
    harness::{self, NO_LIMITS, Process},
};

/// Connections of each kind that are measured.
const COUNT: usize = 400;
/// Default of `--max-connections`.
const CONNECTIONS: u64 = 2048;
/// Default of `--max-sessions`.
const SESSIONS: u64 = 4096;
/// Default of `--max-requests-per-user` and of `--max-sessions-per-user`.
const PER_USER: u64 = 256;
/// Sessions whose upstream socket has a large receive buffer, and the bytes that it holds more than
/// a small one (`t3-dispatch/src/sys/receive_buffer.rs`; the kernel doubles both).
const LARGE_BUFFERS: (u64, u64) = (32, 2 * (512 - 128) * 1024);
/// Size of a large head, below the limit of 64 KiB.
const LARGE: usize = 60_000;
/// Timeout for the start of t3-dispatch.
const START: Duration = Duration::from_secs(60);
/// Interval in which the buffers are full if memory does not grow.
const SETTLED: Duration = Duration::from_millis(1500);
/// Time after which a stream that takes no byte is full.
const STALLED: Duration = Duration::from_millis(30);
const UNIT: &str = include_str!("../../../deploy/systemd/t3-dispatch.service");

/// What a connection does with its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Unused after a response.
    Idle,
    /// A large head whose last line is missing.
    UnfinishedHead,
    /// After a large head and its response.
    AfterLargeHead,
    /// A large head, then a download that the client does not read.
    LargeHeadUnread,
    /// A download that the client does not read.
    UnreadDownload,
    /// A WebSocket without messages.
    IdleSession,
    /// A WebSocket that the client does not read.
    UnreadSession,
    /// A WebSocket that neither the client nor serve reads, while both send.
    UnreadBothWays,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Idle,
        Self::UnfinishedHead,
        Self::AfterLargeHead,
        Self::LargeHeadUnread,
        Self::UnreadDownload,
        Self::IdleSession,
        Self::UnreadSession,
        Self::UnreadBothWays,
    ];

    const fn text(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::UnfinishedHead => "unfinished head",
            Self::AfterLargeHead => "after a large head",
            Self::LargeHeadUnread => "large head, unread",
            Self::UnreadDownload => "unread download",
            Self::IdleSession => "idle session",
            Self::UnreadSession => "unread session",
            Self::UnreadBothWays => "unread both ways",
        }
    }

    const fn is_session(self) -> bool {
        matches!(self, Self::IdleSession | Self::UnreadSession | Self::UnreadBothWays)
    }

    /// Makes a connection of this kind.
    fn open(self, dispatch: &Dispatch) -> io::Result<TcpStream> {
        let large = format!("X-Large: {}\r\n", "x".repeat(LARGE));
        let upgrade = |target: &str| handshake::request(target, [("X-Authentik-Username", "ann")]);
        match self {
            Self::Idle => {
                let mut stream = dispatch.connect(&request("/", ""))?;
                answered(&mut stream, "200")?;
                stream.read_exact(&mut [0; 2])?;
                Ok(stream)
            }
            Self::UnfinishedHead => dispatch.connect(request("/", &large).trim_end()),
            Self::AfterLargeHead => {
                let mut stream = dispatch.connect(&request("/", &large))?;
                answered(&mut stream, "200")?;
                stream.read_to_end(&mut Vec::new())?;
                Ok(stream)
            }
            Self::LargeHeadUnread => dispatch.connect(&request("/big", &large)),
            Self::UnreadDownload => dispatch.connect(&request("/big", "")),
            Self::IdleSession | Self::UnreadSession | Self::UnreadBothWays => {
                let target = if self == Self::IdleSession { "/ws" } else { "/ws-flood" };
                let mut stream = dispatch.connect(&upgrade(target))?;
                answered(&mut stream, "101")?;
                if self == Self::UnreadBothWays {
                    fill(&mut stream)?;
                }
                Ok(stream)
            }
        }
    }
}

/// Memory per connection of a kind, in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Row {
    pub kind: Kind,
    /// Of the process.
    pub resident: u64,
    /// Of its sockets: received and written bytes, and what the kernel holds in advance.
    pub sockets: u64,
}

impl Row {
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.resident + self.sockets
    }
}

/// Memory of each kind, and limits of the unit in bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Limits {
    pub rows: Vec<Row>,
    pub memory_high: u64,
    pub memory_max: u64,
}

impl Limits {
    fn largest(&self, is_counted: impl Fn(Kind) -> bool) -> u64 {
        self.rows.iter().filter(|row| is_counted(row.kind)).map(Row::total).max().unwrap_or(0)
    }

    /// Memory in bytes with all connections and all sessions of the largest kinds.
    #[must_use]
    pub fn most(&self) -> u64 {
        let (count, more) = LARGE_BUFFERS;
        CONNECTIONS * self.largest(|kind| !kind.is_session())
            + SESSIONS * self.largest(Kind::is_session)
            + count * more
    }

    /// Memory in bytes of one user with all requests and sessions of the largest kinds.
    #[must_use]
    pub fn of_one_user(&self) -> u64 {
        PER_USER * (self.largest(|kind| !kind.is_session()) + self.largest(Kind::is_session))
    }

    /// Why the limits of the unit are too low; empty if they are not.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mebibytes = |bytes: u64| bytes >> 20;
        if self.largest(|_| true) == 0 || self.most() >= self.memory_high {
            let (most, high) = (mebibytes(self.most()), mebibytes(self.memory_high));
            wrong.push(format!("every limit at its maximum: {most} MiB, with MemoryHigh={high}M"));
        }
        if self.memory_high >= self.memory_max {
            let (high, max) = (mebibytes(self.memory_high), mebibytes(self.memory_max));
            wrong.push(format!("MemoryHigh={high}M is not below MemoryMax={max}M"));
        }
        wrong
    }

    pub fn print(&self) {
        println!("\nmemory of t3-dispatch per connection:");
        for row in &self.rows {
            let (resident, sockets) = (row.resident >> 10, row.sockets >> 10);
            println!("  {:20} {resident:>5} KiB resident, {sockets:>5} KiB sockets", row.kind.text());
        }
        println!(
            "  {CONNECTIONS} connections and {SESSIONS} sessions of the largest kinds: {} MiB; \
             MemoryHigh {} MiB, MemoryMax {} MiB",
            self.most() >> 20,
            self.memory_high >> 20,
            self.memory_max >> 20
        );
        let user = self.of_one_user() >> 20;
        println!(
            "  one user with {PER_USER} requests and {PER_USER} sessions of the largest kinds: {user} MiB"
        );
    }
}

/// Measures all kinds. Needs `ss` of iproute2.
///
/// # Errors
/// t3-dispatch does not start or does not answer.
pub fn measure() -> Result<Limits> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).attempt(|| "listen as serve".to_owned())?;
    let port = listener.local_addr().attempt(|| "listen as serve".to_owned())?.port();
    thread::spawn(move || serve(&listener));
    let rows = Kind::ALL.iter().map(|kind| per_connection(port, *kind)).collect::<Result<_>>()?;
    let unit = |name: &str| {
        setting(name).ok_or_else(|| TestError::Unexpected {
            what: format!("{name}= in t3-dispatch.service"),
            got: "none".to_owned(),
        })
    };
    Ok(Limits { rows, memory_high: unit("MemoryHigh")?, memory_max: unit("MemoryMax")? })
}

/// Size in bytes of a setting of the unit.
fn setting(name: &str) -> Option<u64> {
    let value = UNIT.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let (number, shift) = match value.strip_suffix('M') {
        Some(number) => (number, 20),
        None => (value.strip_suffix('G')?, 30),
    };
    Some(number.parse::<u64>().ok()? << shift)
}

fn per_connection(serve: u16, kind: Kind) -> Result<Row> {
    let dispatch = Dispatch::start(serve)?;
    // They have the large receive buffers, so that those measured have small ones.
    let first: io::Result<Vec<TcpStream>> =
        (0..LARGE_BUFFERS.0).map(|_| Kind::IdleSession.open(&dispatch)).collect();
    let _first = first.attempt(|| "open the first sessions".to_owned())?;
    let (resident, sockets) = (dispatch.resident()?, dispatch.sockets()?);
    let held: io::Result<Vec<TcpStream>> = (0..COUNT).map(|_| kind.open(&dispatch)).collect();
    let held = held.attempt(|| format!("open connections: {}", kind.text()))?;
    // Until the buffers are full.
    let mut now = 0;
    loop {
        thread::sleep(SETTLED);
        let before = std::mem::replace(&mut now, dispatch.resident()? + dispatch.sockets()?);
        if now <= before + before / 50 {
            break;
        }
    }
    let each = |now: u64, before: u64| now.saturating_sub(before) / COUNT as u64;
    let row = Row {
        kind,
        resident: each(dispatch.resident()?, resident),
        sockets: each(dispatch.sockets()?, sockets),
    };
    drop(held);
    Ok(row)
}

/// serve: opens a WebSocket and sends without end on `/ws-flood`, nothing on `/ws`; `/big` is a
/// download, everything else a small response.
fn serve(listener: &TcpListener) {
    for mut stream in listener.incoming().flatten() {
        let _ = thread::Builder::new().stack_size(128 << 10).spawn(move || answer(&mut stream));
    }
}

fn answer(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let head = head(stream)?;
        let floods = head.starts_with("GET /ws-flood") || head.starts_with("GET /big");
        if head.starts_with("GET /ws") {
            stream.write_all(handshake::response(handshake::KEY).as_bytes())?;
        } else if floods {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")?;
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            continue;
        }
        if floods {
            // Frames of 64 KiB without a mask; a download has no format.
            let frame = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[0; 64 << 10]].concat();
            loop {
                stream.write_all(&frame)?;
            }
        }
        stream.read_exact(&mut [0])?;
    }
}

fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Sends masked frames until no byte has been taken for [`STALLED`].
fn fill(stream: &mut TcpStream) -> io::Result<()> {
    let frame = [&[0x82, 255, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[0; 64 << 10]].concat();
    stream.set_write_timeout(Some(STALLED))?;
    loop {
        match stream.write_all(&frame) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads a head with this status.
fn answered(stream: &mut TcpStream, status: &str) -> io::Result<()> {
    let head = head(stream)?;
    if head.split(' ').nth(1) == Some(status) { Ok(()) } else { Err(io::Error::other(head)) }
}

fn request(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\n{more}\r\n")
}

struct Dispatch {
    process: Process,
    address: SocketAddr,
    serve: u16,
    _dir: tempfile::TempDir,
}

impl Dispatch {
    /// Starts a process, so that no measurement includes memory that an earlier one left.
    fn start(serve: u16) -> Result<Self> {
        let dir = tempfile::tempdir().attempt(|| "make a temporary directory".to_owned())?;
        let table = dir.path().join("table.json");
        let uid = rustix::process::geteuid().as_raw();
        let text = format!(r#"{{"ann": {{"os_user": "ann", "uid": {uid}, "port": {serve}}}}}"#);
        fs::write(&table, text).attempt(|| "write the routing table".to_owned())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, harness::free_port()?));
        let mut command = Command::new(harness::find("t3-dispatch")?);
        command
            .args(["serve", "--config", "/dev/null", "--log", "stderr", "--no-pairing"])
            .args(["--metrics-listen", "off", "--trace-socket", "/nonexistent"])
            .args(["--header-timeout", "120s", "--user-timeout", "0s"])
            .args(["--trusted-user", &uid.to_string(), "--listen", &address.to_string(), "--table"])
            .arg(&table)
            .args(NO_LIMITS);
        let mut process = Process::start(command)?;
        process.until_ready("t3-dispatch", START, || TcpStream::connect(address).is_ok())?;
        Ok(Self { process, address, serve, _dir: dir })
    }

    fn resident(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = fs::read_to_string(&path).attempt(|| format!("read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        let kibibytes = kibibytes.ok_or_else(|| TestError::Unexpected {
            what: "VmRSS of t3-dispatch".to_owned(),
            got: self.process.stderr(),
        })?;
        Ok(kibibytes << 10)
    }

    fn sockets(&self) -> Result<u64> {
        let (down, up) = (format!(":{}", self.address.port()), format!(":{}", self.serve));
        let filter = ["(", "sport", "=", &down, "or", "dport", "=", &up, ")"];
        let output = Command::new("ss").arg("-tmnH").args(filter).output();
        let output = output.attempt(|| "run ss of iproute2".to_owned())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let buffers = text.split("skmem:(").skip(1).filter_map(|rest| rest.split(')').next());
        let field = |buffers: &str, name: &str| -> u64 {
            buffers.split(',').filter_map(|value| value.strip_prefix(name)?.parse::<u64>().ok()).sum()
        };
        Ok(buffers.map(|buffers| field(buffers, "r") + field(buffers, "w") + field(buffers, "f")).sum())
    }

    fn connect(&self, request: &str) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(request.as_bytes())?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connection: u64, session: u64, unread: u64) -> Limits {
        let row = |kind, resident| Row { kind, resident, sockets: 0 };
        Limits {
            rows: vec![
                row(Kind::Idle, 1),
                row(Kind::UnreadDownload, connection),
                row(Kind::IdleSession, session),
                row(Kind::UnreadSession, unread),
            ],
            memory_high: 100 << 20,
            memory_max: 120 << 20,
        }
    }

    #[test]
    fn the_largest_kind_and_all_sessions_count() {
        assert_eq!(limits(1000, 100, 5000).most(), 2048 * 1000 + 4096 * 5000 + 32 * 768 * 1024);
        assert_eq!(limits(1000, 100, 5000).of_one_user(), 256 * (1000 + 5000));
        assert_eq!(limits(1000, 100, 5000).findings(), [""; 0]);
        assert_eq!(limits(60_000, 100, 0).findings().len(), 1);
        assert_eq!(limits(0, 100_000, 0).findings().len(), 1);
        assert_eq!(limits(0, 100, 100_000).findings().len(), 1, "unread sessions count");
        let equal = Limits { memory_high: 120 << 20, ..limits(1, 1, 1) };
        assert_eq!(equal.findings().len(), 1);
        assert_eq!(Limits { rows: Vec::new(), ..limits(1, 1, 1) }.findings().len(), 1, "not measured");
    }

    #[test]
    fn the_unit_has_both_settings() {
        assert!(setting("MemoryHigh") > Some(1 << 30) && setting("MemoryMax") > setting("MemoryHigh"));
    }
}
