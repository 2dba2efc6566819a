//! The programs of the demo as child processes, and what this machine and user allow. Everything
//! ends on drop, in the order in which a real machine would stop it, so that nobody's end looks
//! like somebody else's.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use t3_record::KernelSource;
use tempfile::TempDir;

use super::{
    records::Records,
    scenario::{Ending, Needs},
    screen::Screen,
};
use crate::{
    error::{Attempt, Result, TestError},
    harness::{self, Cgroup, Netns, Process, Serve, Stream, find, free_port},
    sys, wait,
};

/// The demo's users.
pub const USERS: [&str; 2] = ["alice", "bob"];

/// How long a program may take to get ready.
const START: Duration = Duration::from_secs(60);
/// How long one may take to stop when asked to.
const STOP: Duration = Duration::from_secs(4);
/// So that a vanished client shows in seconds; in service it is 15 s and 30 s.
const DISPATCH_TIMEOUTS: [&str; 4] = ["--keepalive", "1s", "--user-timeout", "3s"];

/// The running programs.
#[derive(Debug)]
pub struct Fixture {
    /// Where t3-dispatch listens.
    pub address: SocketAddr,
    /// Where kernel evidence comes from here.
    pub kernel: KernelSource,
    /// What this machine or user lacks, each in a few words.
    pub lacking: Vec<String>,
    /// `t3-trace live` shows what happens.
    pub live_shows: bool,
    /// The client's network that can go dark.
    pub network: Option<Netns>,
    /// The cgroups of the users' serves, where they can be had.
    pub cgroups: BTreeMap<&'static str, Cgroup>,
    dispatch: Option<Process>,
    trace: Option<Process>,
    live: Option<Process>,
    serves: BTreeMap<&'static str, Serve>,
    ports: BTreeMap<&'static str, u16>,
    dir: TempDir,
}

impl Fixture {
    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// A program is missing or does not get ready; with its stderr.
    pub fn start(screen: &Screen, records: &Records) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("t3-demo-").tempdir();
        let dir = dir.attempt(|| "make a temporary directory".to_owned())?;
        let ports = USERS.iter().map(|user| Ok((*user, free_port()?))).collect::<Result<_>>()?;
        let mut lacking = Vec::new();
        if !sys::is_root() {
            lacking.push("root".to_owned());
        }
        let network = note(&mut lacking, Netns::new());
        let near = network.as_ref().map_or(Ipv4Addr::LOCALHOST, |network| network.near);
        let mut fixture = Self {
            address: SocketAddr::from((near, free_port()?)),
            kernel: KernelSource::Off,
            lacking,
            live_shows: false,
            network,
            cgroups: BTreeMap::new(),
            dispatch: None,
            trace: None,
            live: None,
            serves: BTreeMap::new(),
            ports,
            dir,
        };
        for user in USERS {
            if let Some(cgroup) = note(&mut fixture.lacking, Cgroup::new()) {
                fixture.cgroups.insert(user, cgroup);
            }
            fixture.start_serve(user)?;
        }
        fixture.start_trace(screen)?;
        fixture.start_dispatch(screen, records)?;
        Ok(fixture)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("evidence.sock")
    }

    /// This ending cannot be shown here, and why.
    #[must_use]
    pub fn cannot(&self, ending: Ending) -> Option<String> {
        let root = sys::is_root();
        match ending.needs() {
            Needs::Network if self.network.is_none() => {
                Some(if root { "no network namespace" } else { "needs root" }.to_owned())
            }
            Needs::MemoryLimit if !self.cgroups.get(ending.user()).is_some_and(Cgroup::limits_memory) => {
                Some(if root { "no memory controller" } else { "needs root" }.to_owned())
            }
            _ => None,
        }
    }

    /// Starts (or starts again) a user's stand-in, in the user's cgroup.
    ///
    /// # Errors
    /// See [`Serve::start`].
    pub fn start_serve(&mut self, user: &'static str) -> Result<()> {
        self.serves.remove(user);
        let doors = self.cgroups.get(user).map(Cgroup::doors).transpose()?.unwrap_or_default();
        let port = self.ports.get(user).copied().unwrap_or_default();
        let serve = Serve::start(self.dir.path(), port, &["--user", user], doors)?;
        self.serves.insert(user, serve);
        Ok(())
    }

    /// A user's stand-in.
    ///
    /// # Errors
    /// There is no such user.
    pub fn serve(&mut self, user: &str) -> Result<&mut Serve> {
        let missing =
            || TestError::Unexpected { what: "a user of the demo".to_owned(), got: user.to_owned() };
        self.serves.get_mut(user).ok_or_else(missing)
    }

    /// The process behind a user's serve.
    #[must_use]
    pub fn pid(&self, user: &str) -> Option<u32> {
        self.serves.get(user).map(|serve| serve.process.pid())
    }

    fn start_trace(&mut self, screen: &Screen) -> Result<()> {
        if sys::is_root() {
            harness::mount_kernel_filesystems();
        }
        let program = find("t3-trace")?;
        let mut daemon = Command::new(&program);
        daemon.arg("daemon").arg("--socket").arg(self.socket()).args(["--log", "stderr"]);
        self.trace = Some(Process::start(daemon)?);
        let socket = self.socket();
        ready("t3-trace", &mut self.trace, || harness::trace_status(&socket).is_ok())?;
        let status = harness::trace_status(&socket)?;
        self.kernel = status.kernel.unwrap_or(KernelSource::Off);
        if self.kernel == KernelSource::Off && sys::is_root() {
            let why = status.hooks.iter().find_map(|hook| hook.why.clone());
            self.lacking.push(format!(
                "kernel evidence ({})",
                why.unwrap_or_else(|| "t3-trace gives none".to_owned())
            ));
        }
        let mut live = Command::new(&program);
        live.arg("live").arg("--socket").arg(&socket);
        if !screen.colours() {
            live.arg("--plain");
        }
        let shown = screen.clone();
        self.live = Some(Process::start_heard(live, move |stream, line| {
            if stream == Stream::Stdout {
                shown.program(line);
            }
        })?);
        let mut looks = 0;
        ready("t3-trace live", &mut self.live, || {
            // Whoever asks counts as one; the last one who asked may still do.
            let subscribed = harness::trace_status(&socket).is_ok_and(|status| status.subscribers >= 2);
            looks = if subscribed { looks + 1 } else { 0 };
            looks >= 3
        })?;
        self.live_shows = true;
        Ok(())
    }

    fn start_dispatch(&mut self, screen: &Screen, records: &Records) -> Result<()> {
        let table: serde_json::Map<_, _> = (self.ports.iter())
            .map(|(user, port)| ((*user).to_owned(), serde_json::json!({ "os_user": user, "port": port })))
            .collect();
        let path = self.dir.path().join("dispatch.json");
        let text = serde_json::Value::Object(table).to_string();
        fs::write(&path, text).attempt(|| "write dispatch.json".to_owned())?;
        let mut command = Command::new(find("t3-dispatch")?);
        command.args(["serve", "--config", "/dev/null", "--listen"]).arg(self.address.to_string());
        command.arg("--table").arg(path);
        command.arg("--trace-socket").arg(self.socket()).args(["--log", "stderr"]).args(DISPATCH_TIMEOUTS);
        command.args(["--no-pairing", "--trusted-proxy", "127.0.0.0/8", "--metrics-listen", "off"]);
        if let Some(Netns { near, .. }) = &self.network {
            command.arg("--trusted-proxy").arg(format!("{near}/30"));
        }
        let (heard, shown, live_shows) = (records.clone(), screen.clone(), self.live_shows);
        self.dispatch = Some(Process::start_heard(command, move |_, line| {
            if heard.hear(line) && !live_shows {
                shown.program(line);
            }
        })?);
        let (address, socket) = (self.address, self.socket());
        ready("t3-dispatch", &mut self.dispatch, || {
            let accepts = TcpStream::connect(address).is_ok();
            accepts && harness::trace_status(&socket).is_ok_and(|status| status.dispatch)
        })
    }

    /// What t3-dispatch and t3-trace wrote to stderr, for the report of a failure.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.trace.iter().chain(&self.dispatch).chain(&self.live).map(Process::stderr).collect()
    }

    /// Whether t3-dispatch and t3-trace still run.
    ///
    /// # Errors
    /// One has ended; with its stderr.
    pub fn runs(&mut self) -> Result<()> {
        let gone = self.trace.iter_mut().chain(&mut self.dispatch).any(|process| process.ended().is_some());
        if !gone {
            return Ok(());
        }
        Err(TestError::Unexpected {
            what: "t3-trace and t3-dispatch running".to_owned(),
            got: format!("\n{}", self.stderr()),
        })
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // dispatch first: what it has to say should find t3-trace and its viewer there, and the
        // serves alive.
        for process in [&mut self.dispatch, &mut self.live, &mut self.trace] {
            if let Some(mut process) = process.take() {
                let _ = process.signal(libc::SIGTERM);
                let _ = process.wait(STOP);
            }
        }
        self.serves.clear();
        self.cgroups.clear();
        self.network = None;
    }
}

/// The thing, or a note that this machine lacks it; without root it is known already what is
/// lacking.
fn note<T>(lacking: &mut Vec<String>, got: Result<T>) -> Option<T> {
    match got {
        Ok(thing) => Some(thing),
        Err(error) => {
            let why = error.to_string();
            if sys::is_root() && !lacking.contains(&why) {
                lacking.push(why);
            }
            None
        }
    }
}

fn ready(name: &str, process: &mut Option<Process>, mut is_ready: impl FnMut() -> bool) -> Result<()> {
    let what = format!("{name} ready");
    let outcome = wait::until(&what, START, || {
        let died = process.as_mut().is_none_or(|process| process.ended().is_some());
        if died { Some(false) } else { is_ready().then_some(true) }
    });
    let stderr = process.as_ref().map(Process::stderr).unwrap_or_default();
    match outcome {
        Ok(true) => Ok(()),
        Ok(false) => Err(TestError::Unexpected { what, got: format!("it ended\n{stderr}") }),
        Err(error) => Err(TestError::Unexpected { what, got: format!("{error}\n{stderr}") }),
    }
}
