//! The Autobahn WebSocket conformance suite: its fuzzing client against its own echo server.
//!
//! Both need Python 2, so they run by `chroot` in a file system that `cargo xtask test --tier host`
//! makes, on the host's network. The test compares two runs, with and without dispatch between
//! client and server; it does not judge dispatch by the standard.

mod report;

pub use report::{Report, differences};

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    error::{Attempt, Result, TestError},
    harness::Process,
    prerequisite,
};

/// Starts wstest with the options of the test.
const WSTEST: &str = include_str!("wstest.py");
/// Default number of messages of a compression case.
pub const ALL_MESSAGES: u32 = 1_000;
/// Timeout for a run.
const LIMIT: Duration = Duration::from_secs(1_800);
/// Name of the server in reports.
const AGENT: &str = "peer";

/// The installed suite.
#[derive(Debug)]
pub struct Suite {
    root: PathBuf,
}

/// One run of the fuzzing client.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Address; one connection per case.
    pub to: SocketAddr,
    /// User of the identity header; ignored without dispatch.
    pub user: &'a str,
    /// Patterns of cases, such as `1.*`.
    pub cases: &'a [&'a str],
    /// Maximum number of messages of a compression case.
    pub messages: u32,
}

impl Suite {
    /// Finds the suite that `cargo xtask` installed.
    ///
    /// # Errors
    /// [`TestError::Missing`]: it is not there, or this user may not enter it.
    pub fn find() -> Result<Self> {
        prerequisite::root()?;
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/autobahn");
        if !dir.join("stamp").is_file() {
            return Err(TestError::Missing {
                what: "the Autobahn suite".to_owned(),
                remedy: "run `cargo xtask test --tier host`, which installs it".to_owned(),
            });
        }
        Ok(Self { root: dir.join("root") })
    }

    /// Starts the echo server on `port`, with compression, and waits until it accepts. It rejects a
    /// Host header with a port other than `named`, the port that clients connect to.
    pub fn echo(&self, port: u16, named: u16) -> Result<Process> {
        let mut command = self.wstest(ALL_MESSAGES, named);
        command.args(["-m", "testeeserver", "-w"]).arg(format!("ws://127.0.0.1:{port}"));
        let mut process = Process::start(command)?;
        let accepts = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        process.until_ready("the echo server", Duration::from_secs(60), accepts)?;
        Ok(process)
    }

    /// Runs the fuzzing client until it exits.
    pub fn run(&self, run: &Run<'_>) -> Result<Report> {
        let dir = tempfile::Builder::new().prefix("t3-").tempdir_in(self.root.join("tmp"));
        let dir = dir.attempt(|| "make a folder for reports".to_owned())?;
        let inside = Path::new("/tmp").join(dir.path().file_name().unwrap_or_default());
        let specification = serde_json::json!({
            "outdir": inside.join("out"),
            "servers": [{
                "agent": AGENT,
                "url": format!("ws://{}/", run.to),
                // The client has no option for another header; the origin can contain one.
                    "origin": format!("http://{}\r\nX-authentik-username: {}", run.to, run.user),
            }],
            "cases": run.cases,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        });
        let path = dir.path().join("client.json");
        fs::write(&path, specification.to_string()).attempt(|| format!("write {}", path.display()))?;
        let mut command = self.wstest(run.messages, run.to.port());
        command.args(["-m", "fuzzingclient", "-s"]).arg(inside.join("client.json"));
        let last = Arc::<Mutex<String>>::default();
        let hear = Arc::clone(&last);
        let mut client = Process::start_observed(command, move |_, line| {
            line.clone_into(&mut hear.lock().unwrap_or_else(PoisonError::into_inner));
        })?;
        let ended = client.wait(LIMIT);
        let last_line = || last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match ended {
            Ok(status) if status.success() => Report::read(&dir.path().join("out"), AGENT),
            Ok(status) => Err(TestError::Unexpected {
                what: "the end of the fuzzing client".to_owned(),
                got: format!("{status}; its last line: {}\n{}", last_line(), client.stderr()),
            }),
            Err(error) => Err(TestError::Unexpected {
                what: error.to_string(),
                got: format!("its last line: {}", last_line()),
            }),
        }
    }

    fn wstest(&self, messages: u32, named: u16) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(["python2", "-W", "ignore", "-c", WSTEST]);
        command.arg(messages.to_string()).arg(named.to_string());
        command.current_dir("/").env("LC_ALL", "C.UTF-8");
        command
    }
}
