//! The program itself: bad usage, bad configuration, a port in use, reload, stop. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
};

const GOOD: &str = r#"{"ann": {"os_user": "ann", "port": 1}}"#;

fn dispatch(table: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-dispatch"));
    command.env_clear().env("T3_DISPATCH_LOG", "stderr").arg("serve");
    command.args(["--trace-socket", "/nonexistent/evidence.sock"]);
    command
        .arg("--table")
        .arg(table)
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn table(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running dispatch; killed when the test is over.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
    address: String,
}

impl Running {
    fn start(table: &Path) -> Self {
        let mut child = dispatch(table, &["--listen", "127.0.0.1:0", "--drain-time", "1s"]).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let line = wait_for(&mut log, "listening on ");
        let address = line.rsplit("listening on ").next().unwrap().trim().to_owned();
        Self { child, log, address }
    }

    fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn get(&self, user: &str) -> String {
        let mut client = TcpStream::connect(&self.address).unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: t3\r\nX-authentik-username: {user}\r\nConnection: close\r\n\r\n"
        );
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(log: &mut BufReader<ChildStderr>, what: &str) -> String {
    let mut all = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "{what:?} never came:\n{all}");
        if line.contains(what) {
            return line;
        }
        all.push_str(&line);
    }
}

#[test]
fn bad_usage_ends_with_2_and_names_the_mistake() {
    for (more, named) in [
        (&["--lisen", "127.0.0.1:0"][..], "--lisen"),
        (&["--drain-time", "5"][..], "\"5\" is not a time"),
        (&["--trusted-proxy", "10.0.0.0/99"][..], "10.0.0.0/99"),
        (&["--log", "syslog"][..], "syslog"),
        (&["--listen", "3780"][..], "3780"),
    ] {
        let output = dispatch(Path::new("x"), more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(text(&output).contains(named), "{}", text(&output));
    }
    let variable = dispatch(Path::new("x"), &[]).env("T3_DISPATCH_DRAIN_TIME", "soon").output().unwrap();
    assert_eq!(variable.status.code(), Some(2));
    assert!(text(&variable).contains("soon"), "{}", text(&variable));
}

#[test]
fn a_bad_table_at_start_ends_with_78_and_says_where() {
    let bad = table("{\n \"ann\": {\"os_user\": \"ann\", \"port\": \"x\"}}");
    let output = dispatch(bad.path(), &["--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text_of = text(&output);
    for part in [bad.path().to_str().unwrap(), "line 2, column", "key \"ann\""] {
        assert!(text_of.contains(part), "{part} in {text_of}");
    }
    let missing = dispatch(Path::new("/nonexistent/dispatch.json"), &[]).output().unwrap();
    assert_eq!(missing.status.code(), Some(78));
    assert!(text(&missing).contains("/nonexistent/dispatch.json"));
}

#[test]
fn a_port_in_use_ends_with_1_and_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = dispatch(table(GOOD).path(), &["--listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains(&format!("listen on {address}")), "{}", text(&output));
}

#[test]
fn reload_takes_a_good_table_and_keeps_the_last_one_when_it_is_bad() {
    let file = table(GOOD);
    let mut running = Running::start(file.path());
    assert!(running.get("ann").starts_with("HTTP/1.1 502"), "in the table, serve is not there");
    assert!(running.get("bob").starts_with("HTTP/1.1 403"));

    std::fs::write(file.path(), "{\n\"bob\": ").unwrap();
    running.signal(libc::SIGHUP);
    let line = wait_for(&mut running.log, "keeping the table from before");
    assert!(line.contains("line 2, column"), "{line}");
    assert!(running.get("ann").starts_with("HTTP/1.1 502"));

    std::fs::write(file.path(), r#"{"bob": {"os_user": "bob", "port": 1}}"#).unwrap();
    running.signal(libc::SIGHUP);
    wait_for(&mut running.log, "1 logins");
    assert!(running.get("bob").starts_with("HTTP/1.1 502"));
    assert!(running.get("ann").starts_with("HTTP/1.1 403"));
}

#[test]
fn a_signal_ends_it_with_0() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let file = table(GOOD);
        let mut running = Running::start(file.path());
        running.signal(signal);
        assert_eq!(running.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_socket_passed_by_systemd_is_used() {
    use std::os::{fd::AsRawFd, unix::process::CommandExt};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let fd = listener.as_raw_fd();
    let file = table(GOOD);
    // LISTEN_PID must be the pid of dispatch itself: a shell that becomes it knows.
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "exec 3<&\"$0\"; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\""])
        .arg(fd.to_string())
        .arg(env!("CARGO_BIN_EXE_t3-dispatch"))
        .args([
            "serve",
            "--log",
            "stderr",
            "--trace-socket",
            "/nonexistent",
            "--listen",
            "127.0.0.1:1",
            "--table",
        ])
        .arg(file.path())
        .stderr(Stdio::piped());
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    command.process_group(0);
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let line = wait_for(&mut log, "listening on ");
    let running = Running { child, log, address: address.clone() };
    assert!(line.contains(&address), "{line}");
    assert!(running.get("nobody").starts_with("HTTP/1.1 403"));
}
