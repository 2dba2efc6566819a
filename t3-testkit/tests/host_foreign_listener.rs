//! A process of another user on the port of a user's serve receives nothing: no request, no cookie,
//! no credential, on each address and with each way to take the port.
//!
//! Needs root and `cargo xtask build`. The other users are processes of this test with their uid.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use t3_record::Verdict;
use t3_testkit::{
    client::{Client, Config},
    harness::{Setup, Stack},
    journald::Journal,
    prerequisite, sys,
};

const BOB: u32 = 61_301;
const MALLORY: u32 = 61_302;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Set for a process that listens: address, uid and options.
const ROLE: &str = "T3_TEST_LISTENER";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nserv";

/// Process of a user that listens; prints what it receives.
struct Listener {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Listener {
    /// Starts the process, which may fail to listen.
    fn spawn(uid: u32, address: &str, options: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "listener_process", "--nocapture"])
            .env(ROLE, format!("{address} {uid} {options}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn start(uid: u32, address: &str, options: &str) -> Self {
        let mut child = Self::spawn(uid, address, options);
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut listener = Self { child, output };
        assert!(listener.line().contains("listens"), "{address} as {uid}");
        listener
    }

    /// The next line that the process printed, not that of the test harness.
    fn line(&mut self) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some(at) = line.find("LISTENER ") {
                return line[at..].to_owned();
            }
            line.clear();
        }
        String::new()
    }

    /// Ends it and returns all lines that it printed.
    fn end(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        rest.lines().filter(|line| line.contains("LISTENER")).map(|line| format!("{line}\n")).collect()
    }
}

/// The process of [`Listener`].
#[test]
#[ignore = "the body of a child process of the tests below; run by them"]
fn listener_process() {
    let role = std::env::var(ROLE).expect("run by the tests below");
    let mut words = role.split(' ');
    let address: SocketAddr = words.next().unwrap().parse().unwrap();
    sys::become_user(words.next().unwrap().parse().unwrap()).unwrap();
    let options = words.next().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_reuse_port(options.contains("reuseport")).unwrap();
    socket.set_reuse_address(options.contains("reuseaddr")).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(options.contains("v6only")).unwrap();
    }
    let listens = socket.bind(&address.into()).and_then(|()| socket.listen(128));
    println!("\nLISTENER {}", listens.map_or_else(|error| error.to_string(), |()| "listens".to_owned()));
    let listener = std::net::TcpListener::from(socket);
    while let Ok((mut stream, _)) = listener.accept() {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            println!("LISTENER received {:?}", String::from_utf8_lossy(&buffer[..length]));
            let _ = stream.write_all(ANSWER.as_bytes());
        }
    }
}

struct Fixture {
    stack: Stack,
    port: u16,
    minted: PathBuf,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn start(test: &str) -> Option<Self> {
        prerequisite::or_skip(test, prerequisite::root())?;
        let dir = tempfile::tempdir().unwrap();
        let minted = dir.path().join("minted");
        let mint = dir.path().join("mint");
        let script =
            format!("#!/bin/sh\necho \"$1\" >>{}\necho '{{\"credential\":\"SECRET\"}}'\n", minted.display());
        fs::write(&mint, script).unwrap();
        fs::set_permissions(&mint, fs::Permissions::from_mode(0o755)).unwrap();
        let mut setup = Setup::named(["bob"]).unwrap();
        setup.trace = false;
        setup.uids.insert("bob".to_owned(), BOB);
        setup.dispatch_arguments =
            vec!["--mint-command".to_owned(), mint.display().to_string(), "--mint-socket=off".to_owned()];
        let port = setup.users["bob"];
        let stack = Stack::start(setup, Journal::private().unwrap()).unwrap();
        Some(Self { stack, port, minted, _dir: dir })
    }

    fn request(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.stack.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let text =
            format!("{head} HTTP/1.1\r\nHost: t3\r\nX-authentik-username: bob\r\nConnection: close\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        let more = "Cookie: t3_session=SECRET\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n";
        let more = if head.starts_with("POST") {
            format!("{more}Content-Length: 6\r\n\r\nSECRET")
        } else {
            format!("{more}\r\n")
        };
        stream.write_all(more.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A navigation without a session, which would be paired.
    fn navigate(&self) -> String {
        let mut stream = TcpStream::connect(self.stack.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let head = "GET / HTTP/1.1\r\nHost: t3\r\nX-authentik-username: bob\r\nConnection: close\r\n\
                    Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn upgrade(&self) -> u16 {
        Client::refused(Config::new(self.stack.address, "bob")).unwrap()
    }

    /// All kinds of requests; asserts that none of them reaches serve.
    fn nothing_passes(&self, what: &str) {
        for head in ["GET /", "GET /api", "POST /api", "HEAD /"] {
            let answer = self.request(head);
            assert!(answer.starts_with("HTTP/1.1 502 "), "{what}: {head}: {answer}");
        }
        let answer = self.navigate();
        assert!(answer.starts_with("HTTP/1.1 502 "), "{what}: {answer}");
        assert!(!answer.contains("t3_session"), "{what}: {answer}");
        assert_eq!(self.upgrade(), 502, "{what}");
    }
}

#[test]
fn a_process_of_another_user_receives_nothing() {
    let Some(fixture) = Fixture::start("a_process_of_another_user_receives_nothing") else { return };
    let port = fixture.port;
    // serve is down. Each address takes connections to 127.0.0.1.
    for (address, options) in [
        (format!("127.0.0.1:{port}"), "reuseaddr"),
        (format!("0.0.0.0:{port}"), "reuseaddr"),
        (format!("[::]:{port}"), "reuseaddr"),
        (format!("127.0.0.1:{port}"), "reuseport"),
    ] {
        let mallory = Listener::start(MALLORY, &address, options);
        fixture.nothing_passes(&address);
        assert_eq!(mallory.end(), "", "{address}");
    }
    assert!(!fixture.minted.exists(), "no credential is minted for a foreign listener");
    let records = fixture.stack.journal.wait_closes(4, TIMEOUT, |_| true);
    let records = records.unwrap();
    for (record, _) in &records {
        assert_eq!(record.verdict, Verdict::ServeRefused, "{}", record.to_line());
        assert_eq!(record.how.map(|how| how.to_string()).as_deref(), Some("foreign_listener"));
        assert_eq!((record.peer_uid, record.user.as_str()), (Some(MALLORY), "bob"));
    }
    let logged = fixture.stack.journal.messages("502: port").unwrap();
    assert!(!logged.is_empty(), "a line names the port and the uid");
}

#[test]
fn the_users_own_process_is_served_whatever_else_listens() {
    let Some(fixture) = Fixture::start("the_users_own_process_is_served_whatever_else_listens") else {
        return;
    };
    let port = fixture.port;
    let served = |what: &str| {
        let answer = fixture.request("POST /api");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("serv"), "{what}: {answer}");
    };
    for (address, options) in [
        (format!("127.0.0.1:{port}"), "reuseport,reuseaddr"),
        (format!("0.0.0.0:{port}"), "reuseaddr"),
        (format!("[::]:{port}"), "reuseaddr"),
    ] {
        let bob = Listener::start(BOB, &address, options);
        served(&address);
        // Another user cannot block it with sockets that do not take its connections.
        let others = [format!("127.0.0.2:{port}"), format!("[::1]:{port}")];
        if address.starts_with("127") {
            let mallory: Vec<_> =
                others.iter().map(|other| Listener::start(MALLORY, other, "reuseaddr")).collect();
            served(&address);
            for mallory in mallory {
                assert_eq!(mallory.end(), "", "{address}");
            }
            let mallory = Listener::start(MALLORY, &format!("[::]:{port}"), "v6only,reuseaddr");
            served(&address);
            assert_eq!(mallory.end(), "", "{address}");
        }
        let received = bob.end();
        assert!(received.contains("POST /api"), "{received}");
    }
    // The kernel lets no two users share a port (SO_REUSEPORT, socket(7)).
    let bob = Listener::start(BOB, &format!("127.0.0.1:{port}"), "reuseport,reuseaddr");
    let mut refused = Listener::spawn(MALLORY, &format!("127.0.0.1:{port}"), "reuseport,reuseaddr");
    let mut line = String::new();
    let mut output = BufReader::new(refused.stdout.take().unwrap());
    while !line.contains("LISTENER") && output.read_line(&mut line).unwrap() > 0 {}
    assert!(line.contains("LISTENER") && !line.contains("listens"), "{line}");
    refused.kill().unwrap();
    refused.wait().unwrap();
    drop(bob.end());
}

/// The port changes hands between two requests, and between check and connect.
#[test]
fn a_port_that_changes_hands_is_checked_at_every_connection() {
    let Some(fixture) = Fixture::start("a_port_that_changes_hands_is_checked_at_every_connection") else {
        return;
    };
    let address = format!("127.0.0.1:{}", fixture.port);
    for _ in 0..5 {
        let bob = Listener::start(BOB, &address, "reuseaddr");
        assert!(fixture.request("POST /api").starts_with("HTTP/1.1 200 "));
        let received = bob.end();
        assert!(received.contains("SECRET"), "control: {received}");
        // serve down: refused, as before.
        assert!(fixture.request("POST /api").starts_with("HTTP/1.1 502 "));
        assert_eq!(fixture.upgrade(), 502);
        let mallory = Listener::start(MALLORY, &address, "reuseaddr");
        fixture.nothing_passes("after the change");
        assert_eq!(mallory.end(), "");
    }
    // Of each round the upgrade to a serve that is down, and that to a foreign listener.
    let records = fixture.stack.journal.wait_closes(10, TIMEOUT, |_| true).unwrap();
    let hows: Vec<_> =
        records.iter().filter_map(|(record, _)| record.how).map(|how| how.to_string()).collect();
    assert!(hows.iter().any(|how| how == "refused"), "serve down: {hows:?}");
}
