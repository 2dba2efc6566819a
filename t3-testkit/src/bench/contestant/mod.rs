//! Contestants: t3-dispatch, its peers and the floor, each with one thread on the proxy's CPU and
//! with the same backend.

mod dispatch;
mod haproxy;
mod nginx;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use self::haproxy::Buffers;
use super::{cpus::Cpus, meter};
use crate::{
    error::{Result, TestError},
    harness::{self, Process},
    keeper::{self, Keeper},
    sys,
};

/// Timeout for accepting connections after the start.
const START: Duration = Duration::from_secs(20);
/// Sessions above those that are measured.
const SPARE: usize = 200;

/// The proxy between client and backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Contestant {
    /// nginx with its default buffers.
    Nginx,
    /// HAProxy with its default buffers.
    Haproxy,
    /// HAProxy with buffers of 64 KiB.
    #[value(name = "haproxy-64k")]
    #[serde(rename = "haproxy-64k")]
    HaproxyLarge,
    /// t3-dispatch with its defaults.
    Dispatch,
    /// t3-dispatch whose sessions survive a restart: a keeper in place of systemd stores their
    /// sockets.
    DispatchStored,
    /// A bare relay: the cost of the system calls.
    Floor,
}

impl Contestant {
    /// Name in the tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::HaproxyLarge => "haproxy 64k",
            Self::Dispatch => "t3-dispatch",
            Self::DispatchStored => "stored",
            Self::Floor => "floor",
        }
    }

    /// Whether it is t3-dispatch.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Dispatch | Self::DispatchStored)
    }

    /// Whether it is another proxy, that goals refer to.
    #[must_use]
    pub const fn is_peer(self) -> bool {
        matches!(self, Self::Nginx | Self::Haproxy | Self::HaproxyLarge)
    }
}

/// What a contestant needs to start.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    pub backend: SocketAddr,
    /// Maximum number of concurrent sessions.
    pub sessions: usize,
    /// Folder for configurations.
    pub dir: &'a Path,
    pub cpus: Cpus,
    /// Program t3-dispatch; one that cargo built by default.
    pub dispatch: Option<&'a Path>,
    /// This program or a copy of it, for the floor.
    pub relay: &'a Path,
}

/// A contestant that accepts connections.
#[derive(Debug)]
pub struct Running {
    pub contestant: Contestant,
    /// Address for clients.
    pub address: SocketAddr,
    host: Host,
}

#[derive(Debug)]
enum Host {
    Process(Process),
    Keeper(Box<Keeper>),
}

impl Running {
    /// Starts it in front of the backend and waits until it accepts.
    pub fn start(contestant: Contestant, setup: &Setup<'_>) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, harness::free_port()?));
        let mut command = match contestant {
            Contestant::Nginx => nginx::command(setup, address)?,
            Contestant::Haproxy => haproxy::command(setup, address, Buffers::Default)?,
            Contestant::HaproxyLarge => haproxy::command(setup, address, Buffers::Large)?,
            Contestant::Dispatch => dispatch::command(setup, address)?,
            Contestant::DispatchStored => dispatch::stored(setup, address)?,
            Contestant::Floor => floor(setup, address),
        };
        sys::pinned(&mut command, setup.cpus.of_proxy());
        if contestant == Contestant::DispatchStored {
            let options = keeper::Options { max: 1 + 2 * setup.sessions, ..keeper::Options::default() };
            let mut keeper = Keeper::new(options, Vec::new())?;
            keeper.start(command)?;
            return Ok(Self { contestant, address, host: Host::Keeper(Box::new(keeper)) });
        }
        let mut process = Process::start(command)?;
        accepts(&mut process, address, contestant.name())?;
        Ok(Self { contestant, address, host: Host::Process(process) })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match &self.host {
            Host::Process(process) => process.pid(),
            Host::Keeper(keeper) => keeper.pid().unwrap_or_default(),
        }
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Result<Duration> {
        meter::cpu(self.pid())
    }

    /// Its stderr, for error messages.
    #[must_use]
    pub fn stderr(&self) -> String {
        match &self.host {
            Host::Process(process) => process.stderr(),
            Host::Keeper(keeper) => keeper.stderr(),
        }
    }
}

/// Waits until `process` accepts connections at `address`.
pub fn accepts(process: &mut Process, address: SocketAddr, name: &str) -> Result<()> {
    process.until_ready(name, START, || TcpStream::connect(address).is_ok())
}

fn floor(setup: &Setup<'_>, address: SocketAddr) -> Command {
    let mut command = Command::new(setup.relay);
    command.arg("relay").arg(address.to_string()).arg(setup.backend.to_string());
    command
}

/// Names and versions of the peers among these contestants.
#[must_use]
pub fn versions(contestants: &[Contestant]) -> Vec<String> {
    let is_measured = |one| contestants.contains(&one);
    let nginx = is_measured(Contestant::Nginx).then(nginx::version).flatten();
    let haproxy = is_measured(Contestant::Haproxy) || is_measured(Contestant::HaproxyLarge);
    nginx.into_iter().chain(haproxy.then(haproxy::version).flatten()).collect()
}

fn find_program(name: &str) -> Result<PathBuf> {
    harness::find_system(name).map_err(|_| TestError::Missing {
        what: format!("the program {name}"),
        remedy: format!("apt-get install {name}, or select others with --contestant"),
    })
}
