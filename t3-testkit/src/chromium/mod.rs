//! A headless Chromium as a child process: opens pages, each in its own window, and controls them
//! through the DevTools protocol.
//!
//! Changes nothing that a page can observe: heartbeats, reloads and closes are as for a user.

mod devtools;
mod page;

pub use page::Page;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    error::{Attempt, Result, TestError},
    harness::Process,
    sys, wait,
};
use devtools::DevTools;

/// Debian's package.
const PROGRAM: &str = "chromium";

/// Timeout for the start, which is slow on a busy host.
const START: Duration = Duration::from_secs(60);

/// Root cannot use the sandbox; the other flags disable background network traffic.
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=800,500",
    "--remote-debugging-port=0",
];

/// A running browser.
#[derive(Debug)]
pub struct Chromium {
    /// The first process; the others end with it.
    pub process: Process,
    address: SocketAddr,
    path: String,
    // Dropped after the process, which writes there until its end.
    _profile: TempDir,
}

impl Chromium {
    /// Checks that Chromium is installed.
    pub fn program() -> Result<()> {
        let mut command = Command::new(PROGRAM);
        let ran = command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if ran.status().is_ok_and(|status| status.success()) {
            return Ok(());
        }
        Err(TestError::Missing {
            what: "Chromium".to_owned(),
            remedy: format!("install the package {PROGRAM}"),
        })
    }

    /// Starts one with a new profile and waits until DevTools is ready. `hosts` resolve to their
    /// addresses.
    pub fn start(hosts: &[(String, Ipv4Addr)]) -> Result<Self> {
        let profile = tempfile::Builder::new().prefix("t3-chromium-").tempdir();
        let profile = profile.attempt(|| "make a temporary directory".to_owned())?;
        let mut command = Command::new(PROGRAM);
        let rules: Vec<_> = hosts.iter().map(|(host, address)| format!("MAP {host} {address}")).collect();
        command.args(FLAGS).arg(format!("--host-resolver-rules={}", rules.join(", ")));
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mut process = Process::start(command)?;
        // Chromium writes port and path there once it listens.
        let port_file = profile.path().join("DevToolsActivePort");
        let ready = wait::until("the start of Chromium", START, || {
            let gone = process.ended().is_some();
            let text = fs::read_to_string(&port_file).unwrap_or_default();
            let mut lines = text.lines();
            let found = lines.next().and_then(|port| port.parse::<u16>().ok()).zip(lines.next());
            (gone || found.is_some()).then(|| found.map(|(port, path)| (port, path.to_owned())))
        });
        match ready {
            Ok(Some((port, path))) => {
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                Ok(Self { process, address, path, _profile: profile })
            }
            _ => Err(TestError::Unexpected {
                what: "Chromium with DevTools".to_owned(),
                got: process.stderr(),
            }),
        }
    }

    /// Opens a page in its own window, because background pages have slower timers.
    pub fn open(&self, url: &str) -> Result<Page> {
        let mut browser = DevTools::connect(self.address, &self.path)?;
        let made = browser.command("Target.createTarget", json!({ "url": url, "newWindow": true }))?;
        let target = made.get("targetId").and_then(|id| id.as_str()).unwrap_or_default();
        Page::attach(self.address, target)
    }

    /// Kills all of its processes at the same time, as a power loss does, so that none closes the
    /// connections of another.
    pub fn kill(&self) -> Result<()> {
        sys::signal_group(self.process.pid(), libc::SIGKILL).attempt(|| "kill Chromium".to_owned())
    }

    /// Closes it as a user who closes the last window.
    pub fn quit(mut self) -> Result<()> {
        DevTools::connect(self.address, &self.path)?.command("Browser.close", json!({}))?;
        self.process.wait(Duration::from_secs(20)).map(drop)
    }
}
