//! Harness: t3-trace and t3-dispatch as child processes, with a journald and fake serves.
//!
//! Readiness is checked (a port that accepts, a socket that replies), never assumed after a pause.
//! Each program can be killed and started again while the others run. Everything ends on drop.

mod binaries;
mod cgroup;
mod effect_serve;
mod firewall;
mod forwarder;
mod netns;
pub mod npm_peer;
mod one_connection;
mod other_user;
pub mod pip_peer;
mod ports;
mod process;
mod serve_process;
mod trace_client;
mod traefik;
mod tunnel;
mod unit;

pub use binaries::{DIR_VARIABLE, find, find_system, target};
pub use cgroup::Cgroup;
pub use effect_serve::EffectServe;
pub use firewall::Firewall;
pub use forwarder::{FORWARDER_COMM, can_forward, forward};
pub use netns::Netns;
pub use one_connection::OneConnection;
pub use other_user::{OtherUser, role, say};
pub use ports::free as free_port;
pub use process::{Process, Stream};
pub use serve_process::{Body, Serve};
pub use trace_client::{hello as trace_hello, reconcile as trace_reconcile, status as trace_status};
pub use traefik::{Traefik, address_of};
pub use tunnel::Edge;
pub use unit::{Unit, forget_template, systemd_runs};

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use t3_record::{CloseRecord, KernelSource, wire::Status};
use tempfile::TempDir;

use crate::{
    error::{Attempt, Result, TestError},
    journald::Journal,
    keeper::{self, Keeper, LISTENER, Restart},
    outside, sys, wait,
};

/// Timeout for the start of a program; software emulation is slow.
const START: Duration = Duration::from_secs(60);

/// Timeout for a record.
const RECORD: Duration = Duration::from_secs(30);

/// Options of `t3-dispatch serve` for high load by few users.
pub const NO_LIMITS: [&str; 8] = [
    "--max-sessions",
    "1000000",
    "--max-sessions-per-user",
    "1000000",
    "--max-requests-per-user",
    "1000000",
    "--upgrade-rate",
    "0",
];

/// Programs to start, and their options.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Routing table: user and port of its serve, which need not listen yet.
    pub users: BTreeMap<String, u16>,
    /// uid of each serve in the table; users without one have that of the test.
    pub uids: BTreeMap<String, u32>,
    /// Listen address of dispatch; port 0 selects a free one.
    pub listen: SocketAddr,
    /// Networks with trusted identity headers. On this host, those of the own user are trusted.
    pub trusted: Vec<String>,
    /// Start t3-trace.
    pub trace: bool,
    /// Fake serves run as systemd units, each in the cgroup of its unit.
    pub units: bool,
    /// Further arguments of `t3-dispatch serve`.
    pub dispatch_arguments: Vec<String>,
    /// Program with arguments that starts dispatch.
    pub dispatch_prefix: Vec<String>,
    /// Maximum number of stored descriptors of dispatch, which then runs under a [`Keeper`] and
    /// survives its own restart; `None`: no descriptor store.
    pub stored: Option<usize>,
    /// Further arguments of `t3-trace daemon`.
    pub trace_arguments: Vec<String>,
}

impl Setup {
    /// dispatch on loopback, t3-trace if root, and `n` users `u0`, `u1`... with a free port each.
    pub fn users(n: usize) -> Result<Self> {
        Self::named((0..n).map(|i| format!("u{i}")))
    }

    /// The same with these users.
    pub fn named(users: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let users = users.into_iter().map(|user| Ok((user.into(), ports::free()?))).collect::<Result<_>>()?;
        Ok(Self {
            users,
            uids: BTreeMap::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            trusted: Vec::new(),
            trace: sys::is_root(),
            units: false,
            // t3-mint does not run here.
            dispatch_arguments: vec!["--no-pairing".to_owned()],
            dispatch_prefix: Vec::new(),
            stored: None,
            trace_arguments: Vec::new(),
        })
    }

    /// Accepts clients in network namespaces ([`Netns`]) as well, which use a link, not loopback.
    pub fn accept_links(&mut self) {
        self.listen = SocketAddr::from(([0, 0, 0, 0], 0));
        self.trusted.push(netns::NETWORK.to_owned());
    }

    /// Accepts clients outside this machine as well.
    pub fn accept_outside(&mut self) {
        self.listen = SocketAddr::from(([0, 0, 0, 0], 0));
        self.trusted.push(outside::NETWORK.to_owned());
    }
}

/// The running programs.
#[derive(Debug)]
pub struct Stack {
    /// dispatch without a descriptor store.
    pub dispatch: Option<Process>,
    /// dispatch with a descriptor store ([`Setup::stored`]).
    pub keeper: Option<Keeper>,
    pub trace: Option<Process>,
    /// Address of dispatch.
    pub address: SocketAddr,
    /// Where the programs write their records.
    pub journal: Arc<Journal>,
    setup: Setup,
    dir: TempDir,
}

impl Stack {
    /// Starts the programs and waits until they are ready and connected.
    pub fn start(mut setup: Setup, journal: impl Into<Arc<Journal>>) -> Result<Self> {
        let keeper = setup.stored.map(|max| keep(&mut setup, max)).transpose()?;
        let mut stack = Self::without_dispatch(setup, journal)?;
        stack.keeper = keeper;
        stack.start_dispatch()?;
        Ok(stack)
    }

    /// As [`Self::start`], but leaves dispatch to the caller ([`Self::dispatch_command`]).
    pub fn without_dispatch(mut setup: Setup, journal: impl Into<Arc<Journal>>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("t3-stack-").tempdir();
        let dir = dir.attempt(|| "make a temporary directory".to_owned())?;
        if setup.listen.port() == 0 {
            setup.listen.set_port(ports::free()?);
        }
        let loopback = SocketAddr::from(([127, 0, 0, 1], setup.listen.port()));
        let address = if setup.listen.ip().is_unspecified() { loopback } else { setup.listen };
        let (dispatch, keeper, trace, journal) = (None, None, None, journal.into());
        let mut stack = Self { dispatch, keeper, trace, address, journal, setup, dir };
        stack.write_table()?;
        if stack.setup.trace {
            stack.start_trace()?;
        }
        Ok(stack)
    }

    /// Folder for sockets and files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The evidence socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir().join("evidence.sock")
    }

    /// State of t3-trace; it outlives the process.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// The routing table.
    #[must_use]
    pub fn table(&self) -> PathBuf {
        self.dir().join("dispatch.json")
    }

    pub fn port(&self, user: &str) -> Result<u16> {
        self.setup.users.get(user).copied().ok_or_else(|| TestError::Unexpected {
            what: "a user of the fixture".to_owned(),
            got: user.to_owned(),
        })
    }

    /// Whether fake serves are systemd units.
    #[must_use]
    pub fn units(&self) -> bool {
        self.setup.units
    }

    /// Starts a fake serve of this user: as a unit, or as a child in `cgroup`.
    pub fn serve(&self, user: &str, arguments: &[&str], cgroup: Option<&Cgroup>) -> Result<Serve> {
        self.serve_on(user, self.port(user)?, arguments, cgroup)
    }

    /// As [`Self::serve`], on another port than the routing table has.
    pub fn serve_on(
        &self,
        user: &str,
        port: u16,
        arguments: &[&str],
        cgroup: Option<&Cgroup>,
    ) -> Result<Serve> {
        if self.setup.units {
            return Serve::start_unit(user, port, arguments);
        }
        let procs = cgroup.map(Cgroup::procs_files).transpose()?.unwrap_or_default();
        Serve::start(self.dir(), port, arguments, procs)
    }

    fn write_table(&self) -> Result<()> {
        // The users do not exist: serves run as the user of the test.
        let uid = rustix::process::geteuid().as_raw();
        let table: serde_json::Map<_, _> = (self.setup.users.iter())
            .map(|(user, port)| {
                let uid = self.setup.uids.get(user).copied().unwrap_or(uid);
                (user.clone(), serde_json::json!({ "os_user": user, "port": port, "uid": uid }))
            })
            .collect();
        let text = serde_json::Value::Object(table).to_string();
        fs::write(self.table(), text).attempt(|| "write dispatch.json".to_owned())
    }

    /// Starts t3-trace and waits until it is ready, and connected to dispatch if that runs.
    pub fn start_trace(&mut self) -> Result<()> {
        mount_kernel_filesystems();
        let mut command = Command::new(binaries::find("t3-trace")?);
        command.arg("daemon").arg("--socket").arg(self.socket()).args(["--log", self.journal.log_target]);
        command.arg("--state-dir").arg(self.state_dir()).args(&self.setup.trace_arguments);
        self.journal.lend(&mut command)?;
        self.trace = Some(Process::start_observed(command, self.observer())?);
        self.until("t3-trace to reply", |stack| stack.status().is_ok())?;
        if self.dispatch_pid() != 0 { self.until_connected() } else { Ok(()) }
    }

    /// Starts t3-dispatch, with the stored descriptors if it has a keeper, and waits until it
    /// accepts, and is connected to t3-trace if that runs.
    pub fn start_dispatch(&mut self) -> Result<()> {
        let command = self.dispatch_command()?;
        let observer = self.observer();
        match &mut self.keeper {
            Some(keeper) => drop(keeper.start_observed(command, observer)?),
            None => self.dispatch = Some(Process::start_observed(command, observer)?),
        }
        self.until("t3-dispatch to accept", |stack| TcpStream::connect(stack.address).is_ok())?;
        if self.trace.is_some() { self.until_connected() } else { Ok(()) }
    }

    /// Collects the records that a program writes to its output.
    fn observer(&self) -> impl Fn(Stream, &str) + Clone + Send + 'static {
        let collect = self.journal.collector();
        move |_, line| collect(line)
    }

    /// The keeper of dispatch.
    ///
    /// # Errors
    /// dispatch has none: see [`Setup::stored`].
    pub fn keeper(&mut self) -> Result<&mut Keeper> {
        self.keeper.as_mut().ok_or_else(|| not_running("t3-dispatch under a keeper"))
    }

    /// Planned restart of a dispatch with a keeper; then waits as [`Self::start_dispatch`] does.
    ///
    /// # Errors
    /// As [`Keeper::restart`], or it does not connect to t3-trace.
    pub fn restart_dispatch(&mut self) -> Result<Restart> {
        let (command, observer) = (self.dispatch_command()?, self.observer());
        let times = self.keeper()?.restart(command, observer)?;
        if self.trace.is_some() {
            self.until_connected()?;
        }
        Ok(times)
    }

    /// Crash of a dispatch with a keeper, and the next process; waits as [`Self::start_dispatch`]
    /// does.
    ///
    /// # Errors
    /// As [`Keeper::kill`] and [`Self::start_dispatch`].
    pub fn kill_and_restart_dispatch(&mut self) -> Result<()> {
        self.keeper()?.kill()?;
        self.start_dispatch()
    }

    /// The command that starts t3-dispatch.
    pub fn dispatch_command(&self) -> Result<Command> {
        let program = binaries::find("t3-dispatch")?;
        let mut command = match self.setup.dispatch_prefix.split_first() {
            Some((prefix, arguments)) => {
                let mut command = Command::new(prefix);
                command.args(arguments).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(["serve", "--config", "/dev/null", "--listen"]).arg(self.setup.listen.to_string());
        command.arg("--table").arg(self.table()).arg("--trace-socket").arg(self.socket());
        command.args(["--log", self.journal.log_target]).env("T3_DISPATCH_METRICS_LISTEN", "off");
        command.args(["--trusted-user", &sys::uid().to_string(), "--login-domain", "example.org"]);
        for network in &self.setup.trusted {
            command.arg("--trusted-proxy").arg(network);
        }
        command.args(&self.setup.dispatch_arguments);
        self.journal.lend(&mut command)?;
        Ok(command)
    }

    fn until_connected(&mut self) -> Result<()> {
        self.until("t3-dispatch to connect to t3-trace", |stack| {
            stack.status().is_ok_and(|status| status.dispatch)
        })
    }

    /// Status of t3-trace.
    pub fn status(&self) -> Result<Status> {
        trace_client::status(&self.socket())
    }

    /// Asks t3-trace to compare sessions and journal now.
    pub fn reconcile(&self) -> Result<()> {
        trace_client::reconcile(&self.socket())
    }

    /// Waits until so many subscribers are connected to t3-trace.
    pub fn until_subscribers(&self, n: u64) -> Result<()> {
        let mut samples = 0;
        wait::until("subscribers of t3-trace", START, || {
            // This query counts as a subscriber, and the one before may still be counted.
            let enough = self.status().is_ok_and(|status| status.subscribers > n);
            samples = if enough { samples + 1 } else { 0 };
            (samples >= 3).then_some(())
        })
    }

    /// The `kernel=` that a record must have now.
    #[must_use]
    pub fn kernel(&self) -> KernelSource {
        self.status().ok().and_then(|status| status.kernel).unwrap_or(KernelSource::Off)
    }

    /// The process id of dispatch; 0 without it.
    #[must_use]
    pub fn dispatch_pid(&self) -> u32 {
        let kept = self.keeper.as_ref().and_then(Keeper::pid);
        self.dispatch.as_ref().map(Process::pid).or(kept).unwrap_or(0)
    }

    /// The process id of t3-trace; 0 without it.
    #[must_use]
    pub fn trace_pid(&self) -> u32 {
        self.trace.as_ref().map_or(0, Process::pid)
    }

    /// Sends dispatch a signal.
    pub fn signal_dispatch(&self, signal: i32) -> Result<()> {
        self.dispatch.as_ref().ok_or_else(|| not_running("t3-dispatch"))?.signal(signal)
    }

    /// Sends t3-trace a signal.
    pub fn signal_trace(&self, signal: i32) -> Result<()> {
        self.trace.as_ref().ok_or_else(|| not_running("t3-trace"))?.signal(signal)
    }

    /// The one record of a user.
    pub fn record(&self, user: &str) -> Result<CloseRecord> {
        let mut found = self.journal.wait_closes(1, RECORD, |record| record.user == user)?;
        match (found.pop(), found.len()) {
            (Some((record, _)), 0) => Ok(record),
            (_, others) => Err(TestError::Unexpected {
                what: format!("one record of {user}"),
                got: format!("{} records", others + 1),
            }),
        }
    }

    /// stderr of the programs.
    #[must_use]
    pub fn stderr(&self) -> String {
        let started = self.trace.iter().chain(&self.dispatch).map(Process::stderr);
        started.chain(self.keeper.iter().map(Keeper::stderr)).collect()
    }

    fn until(&mut self, what: &str, ready: impl Fn(&Self) -> bool) -> Result<()> {
        let outcome = wait::until(what, START, || {
            let mut started = self.trace.iter_mut().chain(&mut self.dispatch);
            let died = started.any(|process| process.ended().is_some())
                || self.keeper.iter_mut().any(|keeper| keeper.ended().is_some());
            if died { Some(false) } else { ready(self).then_some(true) }
        });
        match outcome {
            Ok(true) => Ok(()),
            Ok(false) => Err(TestError::Unexpected {
                what: what.to_owned(),
                got: format!("it ended:\n{}", self.stderr()),
            }),
            Err(error) => Err(TestError::Unexpected {
                what: what.to_owned(),
                got: format!("{error}\n{}", self.stderr()),
            }),
        }
    }
}

/// A keeper with the listening socket of this setup.
fn keep(setup: &mut Setup, max: usize) -> Result<Keeper> {
    let what = || "listen in place of systemd".to_owned();
    let listener = TcpListener::bind(setup.listen).attempt(what)?;
    setup.listen = listener.local_addr().attempt(what)?;
    setup.dispatch_prefix = keeper::PREFIX.map(str::to_owned).to_vec();
    let options = keeper::Options { max, ..keeper::Options::default() };
    Keeper::new(options, vec![(LISTENER.to_owned(), OwnedFd::from(listener))])
}

fn not_running(program: &str) -> TestError {
    TestError::Unexpected { what: format!("{program} running"), got: "it is stopped".to_owned() }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // dispatch first: its last messages need a running t3-trace.
        drop(self.dispatch.take());
        drop(self.keeper.take());
        drop(self.trace.take());
    }
}

/// Mounts tracefs and bpffs, which systemd does on a real host. A failure shows in the status of
/// t3-trace.
fn mount_kernel_filesystems() {
    for (kind, place) in [("tracefs", "/sys/kernel/tracing"), ("bpf", "/sys/fs/bpf")] {
        let empty = fs::read_dir(place).map(|mut entries| entries.next().is_none());
        if empty.unwrap_or(false) && sys::is_root() {
            let flags = rustix::mount::MountFlags::empty();
            let _ = rustix::mount::mount(kind, place, kind, flags, None);
        }
    }
}
