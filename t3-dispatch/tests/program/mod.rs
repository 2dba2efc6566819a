//! Starts the program like an operator would.
#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
};

pub const GOOD: &str = r#"{"ann": {"os_user": "ann", "port": 1}}"#;

pub fn dispatch(table: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-dispatch"));
    command.env_clear().env("T3_DISPATCH_LOG", "stderr").env("T3_DISPATCH_CONFIG", "/dev/null");
    // An argument takes precedence.
    let user = rustix::process::geteuid().as_raw().to_string();
    command.env("T3_DISPATCH_TRUSTED_USER", user);
    // Requests for / would be paired.
    command.env("T3_DISPATCH_NO_PAIRING", "true");
    command.env("T3_DISPATCH_METRICS_LISTEN", "off").arg("serve");
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

pub fn table(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Running t3-dispatch; killed on drop.
pub struct Running {
    pub child: Child,
    pub log: BufReader<ChildStderr>,
    pub address: String,
}

impl Running {
    pub fn start(table: &Path) -> Self {
        Self::start_with(table, &[])
    }

    pub fn start_with(table: &Path, more: &[&str]) -> Self {
        Self::of(dispatch(table, &["--listen", "127.0.0.1:0", "--drain-time", "1s"]).args(more))
    }

    /// Starts a command that executes t3-dispatch.
    pub fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let line = wait_for(&mut log, "listening on ");
        let address = line.rsplit("listening on ").next().unwrap().trim().to_owned();
        Self { child, log, address }
    }

    pub fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn get(&self, user: &str) -> String {
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

pub fn wait_for(log: &mut BufReader<ChildStderr>, what: &str) -> String {
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
