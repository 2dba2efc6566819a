//! The running prober: its log and its lines of JSON in pipes, and the metrics page from the start.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
};

use t3_record::probe::{Disconnect, Reason};

/// A prober of one serve that refuses connections; killed at the end of the test.
struct Prober {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    page: SocketAddr,
}

impl Drop for Prober {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address without a listener.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-probe"));
    command.args(["run", "--config=/dev/null"]).args(arguments).env_clear();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start() -> Prober {
    let page = closed();
    let mut command = command(&[&format!("--serve=http://{}", closed()), &format!("--listen={page}")]);
    let mut child = command.spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let stderr = BufReader::new(child.stderr.take().unwrap());
    Prober { child, stdout, stderr, page }
}

/// Reads lines up to the one with this text; returns all of them.
fn until(lines: &mut impl BufRead, text: &str) -> String {
    let mut all = String::new();
    while !all.lines().last().unwrap_or_default().contains(text) {
        assert!(lines.read_line(&mut all).unwrap() > 0, "no line with {text}: {all}");
    }
    all
}

fn get(page: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(page).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_log_in_a_pipe_has_no_escape_sequences_and_each_disconnect_is_a_line_of_json() {
    let mut prober = start();
    let log = until(&mut prober.stderr, "disconnected: ");
    assert!(!log.contains('\u{1b}'), "{log:?}");
    for text in
        [" INFO observing leg=\"t3serve\"", " INFO metrics on http://", " WARN disconnected: cannot connect"]
    {
        assert!(log.contains(text), "{text}: {log}");
    }
    let line = until(&mut prober.stdout, "}");
    let disconnect = Disconnect::from_line(&line).unwrap();
    assert_eq!((disconnect.leg.as_str(), disconnect.reason), ("t3serve", Reason::ConnectFailed));

    let page = get(prober.page, "/");
    let result = "\n\nResult: unknown\nInconclusive: the leg t3serve is down (connect_failed in tcp: cannot connect to ";
    assert!(page.contains(result) && page.contains("\nNext: configure the missing legs"), "{page}");
    let metrics = get(prober.page, "/metrics");
    for line in [
        "t3probe_connected{leg=\"t3serve\"} 0\n",
        "t3probe_disconnects_total{leg=\"t3serve\",reason=\"http_500\"} 0\n",
        "t3probe_rtt_seconds_bucket{leg=\"t3serve\",le=\"5\"} 0\n",
        "t3probe_build_info{version=\"",
        "# TYPE process_cpu_seconds_total counter\n",
        "process_open_fds ",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
fn a_broken_configuration_exits_with_2_and_a_used_port_with_1() {
    let serve = format!("--serve=http://{}", closed());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("--listen={}", listener.local_addr().unwrap());
    for (arguments, status, what) in [
        (&["--log-filter=t3=nothing", &serve][..], 2, "--log-filter"),
        (&["--profile=go", &serve], 2, "--profile"),
        (&["--ca-file=/nonexistent", &serve], 2, "see --ca-file"),
        (&["--token-file=/nonexistent", "--host=t3.example.org"], 2, "see --token-file"),
        (&[], 2, "no probe leg is configured"),
        (&[&serve, &taken], 1, "(--listen)"),
    ] {
        let output = command(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {stderr}");
        assert!(stderr.contains(what), "{arguments:?}: {stderr}");
    }
}
