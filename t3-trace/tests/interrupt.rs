//! Ctrl-C during a query to a Loki that does not answer: `closes` and `explain` end by the signal,
//! which a shell shows as exit status 130, with one line.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// A command at a Loki that has accepted its request and does not answer.
struct Waiting {
    child: Child,
    stream: TcpStream,
}

impl Waiting {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let loki = format!("http://{}", listener.local_addr().unwrap());
        let mut command = Command::new(program);
        command.args(arguments).args(["--from", "loki", "--loki", &loki, "--since", "1 hour ago"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut stream = t3_testkit::wait::until("the request", Duration::from_secs(30), || {
            listener.accept().ok().map(|(stream, _)| stream)
        })
        .unwrap();
        stream.set_nonblocking(false).unwrap();
        // A part of the request: the program now waits for the answer.
        assert_ne!(stream.read(&mut [0; 16]).unwrap(), 0);
        Self { child, stream }
    }

    fn interrupt(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
    }
}

#[test]
fn ctrl_c_ends_a_query_to_loki_immediately() {
    for command in [&["closes"][..], &["closes", "--summary"], &["explain", "--last"]] {
        let program = env!("CARGO_BIN_EXE_t3-trace");
        // The test may run as a background process of a script, whose children ignore SIGINT.
        let waiting = Waiting::start("env", &[&["--default-signal=INT", program], command].concat());
        let sent = Instant::now();
        waiting.interrupt();
        let output = waiting.child.wait_with_output().unwrap();
        // A third of the timeout of the request.
        assert!(sent.elapsed() < Duration::from_secs(10), "{command:?}: {:?}", sent.elapsed());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.signal(), Some(Signal::INT.as_raw()), "{command:?}: {stderr}");
        assert_eq!(stderr, "t3-trace: interrupted; the output is not complete\n", "{command:?}");
    }
}

#[test]
fn a_background_process_of_a_script_ignores_ctrl_c() {
    let script = "trap '' INT; exec \"$@\"";
    let program = env!("CARGO_BIN_EXE_t3-trace");
    let waiting = Waiting::start("sh", &["-c", script, "sh", program, "closes"]);
    waiting.interrupt();
    // It ends by the end of the connection.
    drop(waiting.stream);
    let output = waiting.child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(!stderr.contains("interrupted"), "{stderr}");
}
