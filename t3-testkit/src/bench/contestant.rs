//! What is measured: t3-dispatch, HAProxy, and no proxy at all, each in front of the same backend.
//!
//! HAProxy gets what t3-dispatch does anyway and costs nothing to leave out elsewhere: the identity
//! header is checked, the client's address is passed on, keepalive is on, tunnels may idle for an
//! hour. It writes no log; t3-dispatch writes its records.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{client::USER, meter};
use crate::{
    error::{Attempt, Result, TestError},
    harness::{self, Process},
};

/// How long one may take to accept connections.
const START: Duration = Duration::from_secs(20);

/// Something between the client and the backend, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Contestant {
    /// The client talks to the backend: what the machine and the two ends cost by themselves.
    Direct,
    /// t3-dispatch as it is shipped.
    Dispatch,
    /// HAProxy with `nbthread 1`.
    #[value(name = "haproxy-1")]
    #[serde(rename = "haproxy-1")]
    HaproxyOne,
    /// HAProxy as it starts by itself: one thread a core.
    Haproxy,
}

impl Contestant {
    /// Its name in the tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Dispatch => "t3-dispatch",
            Self::HaproxyOne => "haproxy, 1 thread",
            Self::Haproxy => "haproxy, default",
        }
    }
}

/// A contestant that accepts connections.
#[derive(Debug)]
pub struct Running {
    /// Which.
    pub contestant: Contestant,
    /// Where clients connect.
    pub address: SocketAddr,
    process: Option<Process>,
}

impl Running {
    /// Starts it in front of `backend` and waits until it accepts. `sessions`: the most it must
    /// hold at once.
    pub fn start(contestant: Contestant, backend: SocketAddr, sessions: usize, dir: &Path) -> Result<Self> {
        if contestant == Contestant::Direct {
            return Ok(Self { contestant, address: backend, process: None });
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, harness::free_port()?));
        let mut process = Process::start(match contestant {
            Contestant::Dispatch => dispatch(address, backend, dir)?,
            _ => haproxy(contestant == Contestant::HaproxyOne, address, backend, sessions, dir)?,
        })?;
        accepts(&mut process, address, contestant.name())?;
        Ok(Self { contestant, address, process: Some(process) })
    }

    /// Its process id; a direct connection has none.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// CPU time it has used.
    pub fn cpu(&self) -> Result<Duration> {
        self.pid().map_or(Ok(Duration::ZERO), meter::cpu)
    }

    /// What it said on stderr, for the message of an error.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.as_ref().map(Process::stderr).unwrap_or_default()
    }
}

/// Waits until something accepts at `address`.
pub fn accepts(process: &mut Process, address: SocketAddr, name: &str) -> Result<()> {
    process.until_ready(name, START, || TcpStream::connect(address).is_ok())
}

fn dispatch(address: SocketAddr, backend: SocketAddr, dir: &Path) -> Result<Command> {
    let table = dir.join("dispatch.json");
    let text = serde_json::json!({ USER: { "os_user": USER, "port": backend.port() } }).to_string();
    fs::write(&table, text).attempt(|| format!("write {}", table.display()))?;
    let mut command = Command::new(harness::find("t3-dispatch")?);
    command.args(["serve", "--config", "/dev/null", "--trusted-proxy", "127.0.0.0/8", "--log", "stderr"]);
    command.args(harness::NO_LIMITS).args(["--metrics-listen", "off"]);
    command.arg("--listen").arg(address.to_string()).arg("--table").arg(table);
    command.arg("--trace-socket").arg(dir.join("no-t3-trace.sock"));
    Ok(command)
}

fn haproxy(
    one: bool,
    address: SocketAddr,
    backend: SocketAddr,
    sessions: usize,
    dir: &Path,
) -> Result<Command> {
    let path = dir.join(format!("haproxy-{}.cfg", address.port()));
    fs::write(&path, configuration(one, address, backend, sessions))
        .attempt(|| format!("write {}", path.display()))?;
    let mut command = Command::new(find_haproxy()?);
    command.args(["-db", "-f"]).arg(path);
    Ok(command)
}

fn configuration(one: bool, address: SocketAddr, backend: SocketAddr, sessions: usize) -> String {
    let mut text = String::from("global\n");
    let _ = writeln!(text, "    maxconn {}", sessions + 200);
    if one {
        text.push_str("    nbthread 1\n");
    }
    let _ = write!(
        text,
        "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n    \
         timeout tunnel 1h\n    option clitcpka\n    option srvtcpka\n\
         frontend browsers\n    bind {address}\n    \
         http-request deny status 403 unless {{ req.hdr(x-authentik-username) -m str {USER} }}\n    \
         default_backend serve\n\
         backend serve\n    option forwardfor\n    server one {backend}\n"
    );
    text
}

/// Administrators' programs are not in everybody's PATH.
fn find_haproxy() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join("haproxy"))
        .find(|path| path.is_file())
        .ok_or_else(|| TestError::Missing {
            what: "the program haproxy".to_owned(),
            remedy: "apt-get install haproxy, or leave it out with --contestant".to_owned(),
        })
}

/// HAProxy's own name and version.
#[must_use]
pub fn haproxy_version() -> Option<String> {
    let output = Command::new(find_haproxy().ok()?).arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_only_named_when_there_is_to_be_one() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1234));
        let backend = SocketAddr::from((Ipv4Addr::LOCALHOST, 5678));
        assert!(configuration(true, address, backend, 10).contains("\n    nbthread 1\n"));
        let text = configuration(false, address, backend, 10);
        assert!(!text.contains("nbthread"), "{text}");
        assert!(text.contains("maxconn 210\n") && text.contains("bind 127.0.0.1:1234\n"), "{text}");
        assert!(text.contains("{ req.hdr(x-authentik-username) -m str bench }"), "{text}");
    }
}
