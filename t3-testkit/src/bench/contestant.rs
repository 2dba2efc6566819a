//! Contestants: t3-dispatch, HAProxy and a direct connection, each with the same backend.
//!
//! HAProxy is configured for the same work as t3-dispatch: it checks the identity header, forwards
//! the client's address, uses keepalive and keeps idle tunnels for an hour. It writes no log,
//! t3-dispatch writes its records.

use std::{
    ffi::OsString,
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
    keeper::{self, Keeper},
    sys,
};

/// Timeout for accepting connections after the start.
const START: Duration = Duration::from_secs(20);
/// Sessions above those that are measured.
const SPARE: usize = 200;

/// The proxy between client and backend, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Contestant {
    /// No proxy: the cost of the host and the two ends.
    Direct,
    /// t3-dispatch with its defaults.
    Dispatch,
    /// t3-dispatch whose sessions survive a restart: a keeper in place of systemd stores their
    /// sockets.
    #[value(name = "dispatch-stored")]
    #[serde(rename = "dispatch-stored")]
    DispatchStored,
    /// HAProxy with `nbthread 1`.
    #[value(name = "haproxy-1")]
    #[serde(rename = "haproxy-1")]
    HaproxyOne,
    /// HAProxy with its defaults: one thread per core.
    Haproxy,
}

impl Contestant {
    /// Name in the tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Dispatch => "t3-dispatch",
            Self::DispatchStored => "t3-dispatch, stored",
            Self::HaproxyOne => "haproxy, 1 thread",
            Self::Haproxy => "haproxy, default",
        }
    }
}

/// A contestant that accepts connections.
#[derive(Debug)]
pub struct Running {
    pub contestant: Contestant,
    /// Address for clients.
    pub address: SocketAddr,
    process: Option<Process>,
    keeper: Option<Keeper>,
}

impl Running {
    /// Starts it in front of `backend` and waits until it accepts. `sessions` is the maximum number
    /// of concurrent sessions.
    pub fn start(contestant: Contestant, backend: SocketAddr, sessions: usize, dir: &Path) -> Result<Self> {
        if contestant == Contestant::Direct {
            return Ok(Self { contestant, address: backend, process: None, keeper: None });
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, harness::free_port()?));
        if contestant == Contestant::DispatchStored {
            let options = keeper::Options { max: 1 + 2 * sessions, ..keeper::Options::default() };
            let mut keeper = Keeper::new(options, Vec::new())?;
            keeper.start(stored(address, backend, sessions, dir)?)?;
            return Ok(Self { contestant, address, process: None, keeper: Some(keeper) });
        }
        let mut process = Process::start(match contestant {
            Contestant::Dispatch => dispatch(address, backend, sessions, dir)?,
            _ => haproxy(contestant == Contestant::HaproxyOne, address, backend, sessions, dir)?,
        })?;
        accepts(&mut process, address, contestant.name())?;
        Ok(Self { contestant, address, process: Some(process), keeper: None })
    }

    /// The process id; `None` for a direct connection.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let process = self.process.as_ref().map(Process::pid);
        process.or_else(|| self.keeper.as_ref().and_then(Keeper::pid))
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Result<Duration> {
        self.pid().map_or(Ok(Duration::ZERO), meter::cpu)
    }

    /// Its stderr, for error messages.
    #[must_use]
    pub fn stderr(&self) -> String {
        let process = self.process.as_ref().map(Process::stderr);
        process.or_else(|| self.keeper.as_ref().map(Keeper::stderr)).unwrap_or_default()
    }
}

/// Waits until `process` accepts connections at `address`.
pub fn accepts(process: &mut Process, address: SocketAddr, name: &str) -> Result<()> {
    process.until_ready(name, START, || TcpStream::connect(address).is_ok())
}

fn dispatch(address: SocketAddr, backend: SocketAddr, sessions: usize, dir: &Path) -> Result<Command> {
    let mut command = Command::new(harness::find("t3-dispatch")?);
    command.args(arguments(address, backend, sessions, dir)?);
    Ok(command)
}

/// As `dispatch`, for a keeper.
fn stored(address: SocketAddr, backend: SocketAddr, sessions: usize, dir: &Path) -> Result<Command> {
    let mut command = keeper::command(&harness::find("t3-dispatch")?);
    command.args(arguments(address, backend, sessions, dir)?);
    Ok(command)
}

/// Writes the routing table and returns the arguments of t3-dispatch.
fn arguments(address: SocketAddr, backend: SocketAddr, sessions: usize, dir: &Path) -> Result<Vec<OsString>> {
    let table = dir.join("dispatch.json");
    let uid = rustix::process::geteuid().as_raw();
    let text =
        serde_json::json!({ USER: { "os_user": USER, "port": backend.port(), "uid": uid } }).to_string();
    fs::write(&table, text).attempt(|| format!("write {}", table.display()))?;
    let mut arguments: Vec<OsString> =
        ["serve", "--config", "/dev/null", "--log", "stderr"].map(Into::into).to_vec();
    arguments.extend(["--trusted-user".into(), sys::uid().to_string().into()]);
    // All sessions are of one user, and both legs of each need a descriptor.
    let sessions = (sessions + SPARE).to_string();
    for limit in ["--max-sessions", "--max-sessions-per-user"] {
        arguments.extend([limit.into(), sessions.clone().into()]);
    }
    arguments.extend(["--max-connections", "64", "--upgrade-rate", "0"].map(Into::into));
    arguments.extend(["--metrics-listen", "off", "--listen"].map(Into::into));
    arguments.extend([address.to_string().into(), "--table".into(), table.into()]);
    arguments.extend(["--trace-socket".into(), dir.join("no-t3-trace.sock").into()]);
    Ok(arguments)
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

/// Also searches the sbin folders, which may not be in PATH.
fn find_haproxy() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join("haproxy"))
        .find(|path| path.is_file())
        .ok_or_else(|| TestError::Missing {
            what: "the program haproxy".to_owned(),
            remedy: "apt-get install haproxy, or select others with --contestant".to_owned(),
        })
}

/// Name and version as HAProxy prints them.
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
    fn the_number_of_threads_is_set_only_for_one_thread() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1234));
        let backend = SocketAddr::from((Ipv4Addr::LOCALHOST, 5678));
        assert!(configuration(true, address, backend, 10).contains("\n    nbthread 1\n"));
        let text = configuration(false, address, backend, 10);
        assert!(!text.contains("nbthread"), "{text}");
        assert!(text.contains("maxconn 210\n") && text.contains("bind 127.0.0.1:1234\n"), "{text}");
        assert!(text.contains("{ req.hdr(x-authentik-username) -m str bench }"), "{text}");
    }
}
