//! Connections of an unprivileged user on the watched ports: in a network namespace of that user
//! they leave no trace in the tables of t3-trace and change no verdict, and on loopback, where they
//! fill its tables, no record claims more than events show.
//!
//! Needs root, `unshare` and `ip`, user namespaces for all users, and `cargo xtask build`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails its test")]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::{set_socket_linger, socket_cookie};
use t3_record::{CloseRecord, Confidence, KernelSource, Verdict, wire::Status};
use t3_testkit::{
    client::{Client, Config},
    error::TestError,
    harness::{OtherUser, Serve, Setup, Stack, role, say},
    journald::Journal,
    prerequisite, sys,
};

const MALLORY: u32 = 61_501;
/// Connections of each kind: more than half of the tables' default size of 16,384, and with
/// [`OPEN`] more than all of it.
const CLOSED: usize = 24_000;
/// Connections that stay, one descriptor each. Two ports, so twice as many.
const OPEN: usize = 9_000;
/// Longer than t3-trace answers with the same counts of table entries.
const COUNTS_KEPT: Duration = Duration::from_millis(10_500);
/// Entries that the sessions of a test need at most.
const FEW: u64 = 200;
/// Skipped program runs in [`NEEDED`] from which on nothing is proven by absence.
const MANY_SKIPPED: u64 = 128;
const NEEDED: Duration = Duration::from_secs(60);

/// Connections of one test make the kernel skip program runs of another one.
static ALONE: Mutex<()> = Mutex::new(());

/// Where the attacker makes its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    OwnNamespace,
    Loopback,
}

/// The attacker. Listens on both ports and makes connections to itself, with cookies as
/// dispatch's sockets have them.
#[test]
#[ignore = "the body of a child process of the tests below; run by them"]
fn attacker() {
    let words = role().unwrap();
    let [ip, dispatch, serve, uid] = &words[..] else { panic!("{words:?}") };
    if let Ok(uid) = uid.parse() {
        sys::become_user(uid).unwrap();
    }
    let ip: Ipv4Addr = ip.parse().unwrap();
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limits.maximum, ..limits };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let listeners = [dispatch, serve]
        .map(|port| TcpListener::bind(SocketAddr::from((ip, port.parse::<u16>().unwrap()))).unwrap());
    let mut open = Vec::new();
    for listener in &listeners {
        for _ in 0..CLOSED / 2 {
            let (client, accepted) = pair(listener);
            set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
            drop((client, accepted));
        }
        for _ in 0..OPEN {
            // The other end stays open as well, in CLOSE_WAIT.
            open.push(pair(listener).1);
        }
    }
    say(&format!("{} open, {CLOSED} closed", open.len()));
    thread::sleep(Duration::from_secs(300));
}

fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let accepted = listener.accept().unwrap().0;
    for socket in [&client, &accepted] {
        socket_cookie(socket.as_fd()).unwrap();
    }
    (client, accepted)
}

struct Fixture {
    stack: Stack,
    killed: Serve,
    left: Serve,
}

/// What a scene leaves.
struct Outcome {
    /// Before the ends of the sessions.
    status: Status,
    /// After their records.
    after: Status,
    /// Record of the session whose serve was killed.
    killed: CloseRecord,
    /// Record of the session that serve ended with a FIN.
    left: CloseRecord,
}

fn may_make_namespaces() -> Result<(), TestError> {
    let made = Command::new("setpriv")
        .args(["--reuid", "61501", "--regid", "61501", "--clear-groups"])
        .args(["unshare", "--user", "--map-root-user", "--net", "ip", "link", "set", "lo", "up"])
        .output();
    match made {
        Ok(output) if output.status.success() => Ok(()),
        other => Err(TestError::Missing {
            what: format!("network namespaces for users: {other:?}"),
            remedy: "install util-linux and iproute2, and set user.max_user_namespaces".to_owned(),
        }),
    }
}

impl Fixture {
    fn start() -> Self {
        let setup = Setup::named(["killed", "left"]).unwrap();
        let stack = Stack::start(setup, Journal::private().unwrap()).unwrap();
        let kernel = stack.kernel();
        assert!(matches!(kernel, KernelSource::Kprobe | KernelSource::Tracepoint), "{kernel}");
        let killed = stack.serve("killed", &[], None).unwrap();
        let left = stack.serve("left", &[], None).unwrap();
        Self { stack, killed, left }
    }

    fn open(&self, user: &str) -> Client {
        let mut config = Config::new(self.stack.address, user);
        config.heartbeat = Some(Duration::from_secs(1));
        let client = Client::connect(config).unwrap();
        client.heartbeats(1).unwrap();
        client
    }

    /// Starts the attacker on the port of dispatch and that of the serve that will be killed, and
    /// waits until it has made its connections.
    fn attack(&self, place: Place, dir: &std::path::Path) -> Option<OtherUser> {
        let ports = format!("{} {}", self.stack.address.port(), self.stack.port("killed").unwrap());
        let mut attacker = match place {
            Place::Nowhere => return None,
            Place::OwnNamespace => OtherUser::start_in_namespaces(
                MALLORY,
                dir,
                "attacker",
                // The address that dispatch and serve use, too.
                &format!("127.0.0.1 {ports} root"),
            ),
            Place::Loopback => OtherUser::start("attacker", &format!("127.0.0.9 {ports} {MALLORY}")),
        }
        .unwrap();
        let line = attacker.line();
        assert!(line.contains("closed"), "{place:?}: the attacker failed: {line}");
        Some(attacker)
    }
}

/// Two sessions, the attack, then the end of both by their serves.
fn scene(place: Place) -> Outcome {
    let since = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let fixture = Fixture::start();
    let clients = [fixture.open("killed"), fixture.open("left")];
    let attacker = fixture.attack(place, dir.path());
    thread::sleep(COUNTS_KEPT);
    clients[0].heartbeats(1).unwrap();
    let status = fixture.stack.status().unwrap();
    fixture.killed.process.signal(libc::SIGKILL).unwrap();
    fixture.left.order("fin").unwrap();
    for client in &clients {
        client.wait_end().unwrap();
    }
    let [killed, left] = ["killed", "left"].map(|user| fixture.stack.record(user).unwrap());
    let after = fixture.stack.status().unwrap();
    drop(attacker);
    let elapsed = since.elapsed();
    println!("{place:?}: {} runs skipped, {elapsed:?}, {:?}", skipped(&after), status.tables);
    println!("{}\n{}", killed.to_line(), left.to_line());
    assert!(elapsed < NEEDED, "{place:?}: {elapsed:?}: t3-trace considers the last minute");
    Outcome { status, after, killed, left }
}

/// Program runs that the kernel skipped; no event is lost otherwise if no table is full.
fn skipped(status: &Status) -> u64 {
    status.lost - status.map_full
}

fn used(status: &Status, table: &str) -> u64 {
    let found = status.tables.iter().find(|row| row.name == table);
    found.and_then(|row| row.used).unwrap_or_else(|| panic!("{table}: {:?}", status.tables))
}

#[test]
fn connections_in_a_namespace_of_a_user_change_no_verdict() {
    let test = "connections_in_a_namespace_of_a_user_change_no_verdict";
    if prerequisite::or_skip(test, prerequisite::root().and_then(|()| may_make_namespaces())).is_none() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for place in [Place::Nowhere, Place::OwnNamespace] {
        let Outcome { status, after, killed, left } = scene(place);
        for table in ["SOCKETS", "SERVE_ENDS", "GENERATION"] {
            assert!(used(&status, table) < FEW, "{place:?}: {:?}", status.tables);
        }
        assert_eq!(after.map_full, 0, "{place:?}");
        let verdicts = [killed.verdict, left.verdict];
        assert_eq!(verdicts, [Verdict::ServeKilled, Verdict::ServeLeft], "{place:?}");
        // The exit of the process is an event. That the other serve's process lives is not one: the
        // run that would have recorded its signal could be a skipped one.
        assert_eq!(killed.confidence, Some(Confidence::Proven), "{place:?}: {}", killed.to_line());
        let confidence = match [&status, &after].map(|status| skipped(status) >= MANY_SKIPPED) {
            [true, true] => Some(Confidence::Likely),
            [false, false] => Some(Confidence::Proven),
            // Reached at the time of the records.
            _ => left.confidence,
        };
        assert_eq!(left.confidence, confidence, "{place:?}: {}", left.to_line());
    }
}

#[test]
fn an_overflow_on_loopback_leaves_serve_killed_and_nothing_else_proven() {
    let test = "an_overflow_on_loopback_leaves_serve_killed_and_nothing_else_proven";
    if prerequisite::or_skip(test, prerequisite::root()).is_none() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Outcome { status, killed, left, .. } = scene(Place::Loopback);
    // The attack is one: a table is full.
    let is_full = |table: &str, size: u64| used(&status, table) > size / 2;
    assert!(is_full("SERVE_ENDS", 16_384) || status.map_full > 0, "{:?}", status.tables);
    // The exit of the process is an event.
    assert_eq!(killed.verdict, Verdict::ServeKilled, "{}", killed.to_line());
    // That serve's process lives is not one, and its signal could have been evicted.
    assert_eq!(left.confidence, Some(Confidence::Likely), "{}", left.to_line());
    assert!(matches!(left.verdict, Verdict::ServeLeft | Verdict::Unknown), "{}", left.to_line());
}
