//! Fixture of chaos and soak: journald, t3-trace, t3-dispatch, a serve per user, and the clients on
//! a runtime.

use std::{
    collections::HashMap,
    ops::Range,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{runtime::Runtime, sync::Semaphore, task::JoinSet};

use super::{
    client::{self, Seen},
    options::Options,
    plan::{Act, Plan},
    process_usage,
    serve::ServeReport,
};
use crate::{
    error::{Attempt, Result},
    harness::{NO_LIMITS, Process, Setup, Stack, Stream, free_port},
    journald::Journal,
    wait,
};

/// User with a serve that never listens.
const ABSENT: &str = "absent";
/// User that is not in the routing table.
const STRANGER: &str = "stranger";

/// Maximum size of the journal; it occupies memory only as it grows.
const DISK: u64 = 8 << 30;

/// Sessions at a steady pace, or as fast as the host allows.
pub(crate) struct Phase {
    pub name: &'static str,
    pub took: Duration,
    pub seen: Vec<Seen>,
    /// Resident memory of dispatch at the end, in KiB.
    pub dispatch_kib: u64,
}

pub(crate) struct Fixture {
    pub stack: Stack,
    pub seed: u64,
    pub users: usize,
    pub serves: Vec<Process>,
    serve_reports: Arc<Mutex<HashMap<u32, ServeReport>>>,
    pub runtime: Runtime,
    at_once: usize,
    next: u32,
}

impl Fixture {
    /// Starts everything. The current program must have the hidden command `serve`.
    pub(crate) fn start(options: &Options, seed: u64) -> Result<Self> {
        let journal = Journal::on_disk_of(DISK)?;
        Self::with(options.users as usize, options.at_once as usize, seed, journal)
    }

    /// As [`Self::start`], without the options of chaos.
    pub(crate) fn with(users: usize, at_once: usize, seed: u64, journal: Journal) -> Result<Self> {
        let mut setup = Setup::users(users)?;
        setup.dispatch_arguments = NO_LIMITS.map(str::to_owned).to_vec();
        // Each takes two descriptors from the sessions, and few connect at the same time.
        setup.dispatch_arguments.extend(["--max-connections", "512"].map(str::to_owned));
        setup.users.insert(ABSENT.to_owned(), free_port()?);
        let serve_reports = Arc::<Mutex<HashMap<u32, ServeReport>>>::default();
        let program = std::env::current_exe().attempt(|| "find our own program".to_owned())?;
        let mut serves = Vec::new();
        for user in 0..users {
            let port = setup.users.get(&name(user)).copied().unwrap_or_default();
            let mut command = Command::new(&program);
            command.arg("serve").arg(port.to_string());
            let serve_reports = Arc::clone(&serve_reports);
            serves.push(Process::start_observed(command, move |stream, line| {
                if let (Stream::Stdout, Some(one)) = (stream, ServeReport::from_line(line)) {
                    serve_reports.lock().unwrap_or_else(PoisonError::into_inner).insert(one.id, one);
                }
            })?);
            wait::until("a serve to listen", Duration::from_secs(20), || {
                std::net::TcpStream::connect(("127.0.0.1", port)).ok()
            })?;
        }
        let stack = Stack::start(setup, journal)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.attempt(|| "start a runtime".to_owned())?;
        Ok(Self { stack, seed, users, serves, serve_reports, runtime, at_once, next: 0 })
    }

    /// The user of a plan.
    pub(crate) fn user(plan: &Plan) -> String {
        match plan.act {
            Act::Refused => ABSENT.to_owned(),
            Act::Stranger => STRANGER.to_owned(),
            _ => name(plan.user),
        }
    }

    /// The process behind the upstream leg of a plan.
    pub(crate) fn serve_pid(&self, plan: &Plan) -> Option<u32> {
        self.serves.get(plan.user).filter(|_| plan.act != Act::Refused).map(Process::pid)
    }

    /// Reports of the serves.
    pub(crate) fn serve_reports(&self) -> HashMap<u32, ServeReport> {
        self.serve_reports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Carries out the next `count` plans, `pace` per second or as fast as possible. `meanwhile` is
    /// called repeatedly with the number of finished plans.
    pub(crate) fn phase(
        &mut self,
        name: &'static str,
        count: u32,
        pace: Option<u32>,
        mut meanwhile: impl FnMut(&mut Self, u32) -> Result<()>,
    ) -> Result<Phase> {
        let ids = self.next..self.next + count;
        self.next = ids.end;
        let over = Arc::<AtomicU32>::default();
        let began = Instant::now();
        let browsers = self.runtime.spawn(browse(
            Browse { address: self.stack.address, seed: self.seed, users: self.users, at_once: self.at_once },
            ids,
            pace,
            Arc::clone(&over),
        ));
        while !browsers.is_finished() {
            meanwhile(self, over.load(Ordering::Relaxed))?;
            std::thread::sleep(Duration::from_millis(2));
        }
        let seen = self.runtime.block_on(browsers).map_err(std::io::Error::other);
        let seen = seen.attempt(|| format!("carry out the phase {name}"))?;
        let took = began.elapsed();
        let dispatch = self.stack.dispatch_pid();
        Ok(Phase { name, took, seen, dispatch_kib: process_usage::sample(dispatch).rss_kib })
    }
}

fn name(user: usize) -> String {
    format!("u{user}")
}

struct Browse {
    address: std::net::SocketAddr,
    seed: u64,
    users: usize,
    at_once: usize,
}

async fn browse(how: Browse, ids: Range<u32>, pace: Option<u32>, over: Arc<AtomicU32>) -> Vec<Seen> {
    let places = Arc::new(Semaphore::new(how.at_once));
    let mut ticks = pace.map(|pace| tokio::time::interval(Duration::from_secs(1) / pace));
    let mut browsers = JoinSet::new();
    let mut seen = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let place = Arc::clone(&places).acquire_owned().await;
        let plan = Plan::draw(how.seed, id, how.users);
        let over = Arc::clone(&over);
        browsers.spawn(async move {
            let seen = client::run(how.address, &Fixture::user(&plan), plan).await;
            drop(place);
            over.fetch_add(1, Ordering::Relaxed);
            seen
        });
        while let Some(done) = browsers.try_join_next() {
            seen.extend(done.ok());
        }
    }
    while let Some(done) = browsers.join_next().await {
        seen.extend(done.ok());
    }
    seen
}
