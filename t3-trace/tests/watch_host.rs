//! `t3-trace watch` as a process: its lines, its end and its errors.
//!
//! Needs root and the eBPF object; else it prints the reason and passes, or fails in CI.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use t3_testkit::{harness::OneConnection, sys};

const TIMEOUT: Duration = Duration::from_secs(30);
const NOBODY: u32 = 65_534;

#[test]
#[ignore = "started by another test"]
fn server() {
    OneConnection::serve().unwrap();
}

/// A running `t3-trace watch`.
struct Watch {
    child: Child,
    lines: Receiver<String>,
    dir: tempfile::TempDir,
}

impl Watch {
    /// Starts it and waits until it watches; `None` with a message without root.
    fn start(options: &[&str]) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut child = watch(options, dir.path()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok());
        });
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut text = String::new();
        while !text.contains("waiting for connections") {
            assert!(stderr.read_line(&mut text).unwrap() > 0, "it ended: {text}");
        }
        thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::stderr()));
        Some(Self { child, lines, dir })
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(TIMEOUT).unwrap()
    }

    /// Its end after a signal, and the lines printed until then.
    fn end(mut self, signal: i32) -> (ExitStatus, Vec<String>) {
        sys::signal(self.child.id(), signal).unwrap();
        let status = wait(&mut self.child);
        let left: Vec<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "nothing is left behind: {left:?}");
        (status, self.lines.iter().collect())
    }
}

/// Whether this is root; else the reason is printed, or the test fails in CI.
fn is_root() -> bool {
    if !sys::is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run this test as root");
        eprintln!("SKIPPED: t3-trace watch needs root");
        return false;
    }
    true
}

fn watch(options: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-trace"));
    command.arg("watch").args(options).env("TMPDIR", dir).env("T3_TRACE_CONFIG", "/dev/null");
    command.env("NO_COLOR", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn wait(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(started.elapsed() < TIMEOUT, "it does not end");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn each_connection_that_ends_has_a_readable_line_and_an_interrupt_ends_it() {
    let (mut killed, own) =
        (OneConnection::start("server").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (port, own_port) = (killed.port().to_string(), own.local_addr().unwrap().port());
    // A port that is given twice is watched once.
    let Some(watch) = Watch::start(&["--port", &format!("{port},{own_port},{port}")]) else { return };
    assert!(watch.line().contains("DURATION"), "the heading");
    let client = killed.connect().unwrap();
    killed.kill().unwrap();
    let line = watch.line();
    let from = format!(":{port} from 127.0.0.1");
    for part in ["serve_killed", "signal:9", "by watch_host", &from] {
        assert!(line.contains(part), "{part} in {line}");
    }
    drop(client);
    // The client ends this one: the side is not guessed from the order of the connections.
    let client = TcpStream::connect(("127.0.0.1", own_port)).unwrap();
    let (mut accepted, _) = own.accept().unwrap();
    drop(client);
    assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 0);
    drop(accepted);
    let line = watch.line();
    assert!(line.contains("client_left") && line.contains(&format!(":{own_port} from 127.0.0.1")), "{line}");
    let (status, rest) = watch.end(libc::SIGINT);
    assert_eq!((status.code(), rest), (Some(0), Vec::new()));
}

#[test]
fn json_has_the_record_and_short_connections_are_left_out_on_request() {
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = own.local_addr().unwrap().port();
    let option = port.to_string();
    let Some(watch) = Watch::start(&["--port", &option, "--json", "--min-duration", "300ms"]) else { return };
    let mut connections = (0..3).map(|_| {
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        (own.accept().unwrap().0, client)
    });
    let long = connections.next().unwrap();
    drop(connections.next());
    thread::sleep(Duration::from_millis(400));
    drop(connections.next());
    let (accepted, client) = long;
    drop(accepted);
    drop(client);
    let record: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!((&record["verdict"], &record["via"]), (&"serve_left".into(), &"direct".into()));
    assert_eq!((&record["port"], &record["ip"]), (&port.into(), &"127.0.0.1".into()));
    assert!(record["dur_ms"].as_u64() >= Some(300), "{record}");
    let (status, rest) = watch.end(libc::SIGTERM);
    assert_eq!((status.code(), rest), (Some(0), Vec::new()), "only the long one");
}

#[test]
fn two_watches_of_one_port_do_not_disturb_each_other() {
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = own.local_addr().unwrap().port();
    let option = port.to_string();
    let Some(first) = Watch::start(&["--port", &option]) else { return };
    let Some(second) = Watch::start(&["--port", &option]) else { return };
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    drop(own.accept().unwrap());
    drop(client);
    for watch in [&first, &second] {
        assert!(watch.line().contains("DURATION"), "the heading");
        assert!(watch.line().contains("serve_left"));
    }
    // The end of one is not that of the other.
    assert_eq!(first.end(libc::SIGINT).0.code(), Some(0));
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    drop(own.accept().unwrap());
    drop(client);
    assert!(second.line().contains("serve_left"));
    assert_eq!(second.end(libc::SIGINT).0.code(), Some(0));
}

#[test]
fn errors_name_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    for (options, cause) in [
        (&["--port", "0"][..], "0 is not in 1..=65535"),
        (&["--port", "65536"], "65536 is not in 1..=65535"),
        (&["--port", "http"], "invalid digit"),
        (&[], "--port <PORT>"),
        (&["--port", "80", "--min-duration", "5"], "expected a duration"),
    ] {
        let output = watch(options, dir.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), text.contains(cause)), (Some(2), true), "{options:?}: {text}");
    }
    if !is_root() {
        return;
    }
    // Without privileges. The program is in a folder that this user can read.
    let program = dir.path().join("t3-trace");
    fs::copy(env!("CARGO_BIN_EXE_t3-trace"), &program).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&program);
    command.args(["watch", "--port", "80"]).uid(NOBODY).gid(NOBODY).current_dir("/");
    let output = command.stdout(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{text}");
    assert!(text.contains("cannot watch the kernel") && text.contains("root"), "{text}");
    // No folder for the socket.
    let mut command = watch(&["--port", "80"], &dir.path().join("missing"));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{text}");
    assert!(text.contains("cannot create a directory for the evidence socket"), "{text}");
}
