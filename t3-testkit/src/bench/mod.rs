//! Cost of t3-dispatch compared with HAProxy, in the same run on the same host: memory of idle
//! sessions, CPU per message, CPU of bulk data. The results are ratios; absolute numbers depend on
//! the host, so nothing passes or fails.
//!
//! Benchmark, client, proxy and backend are separate processes, so that their CPU and memory are
//! separate. Client and backend are the same for every contestant and do little work ([`wire`]).

pub mod backend;
pub mod client;
pub mod contestant;
mod driver;
pub mod measure;
pub mod meter;
pub mod options;
pub mod report;
pub mod stats;
pub mod table;
pub mod wire;

use std::{fs, time::Duration};

use contestant::Contestant;
use options::{Options, Part};
use report::{Machine, Report};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Attempt, Result};

/// Descriptors of a proxy in addition to those of its sessions.
const SPARE: u64 = 200;

/// Runs the part selected on the command line.
pub fn run(options: &Options) -> Result<()> {
    match &options.part {
        Some(Part::Backend { port }) => backend::run(*port),
        Some(Part::Client(load)) => client::run(load),
        None => bench(options),
    }
}

/// Amount of work of a run.
struct Plan {
    sessions: usize,
    rest: Duration,
    rounds: usize,
    /// Payload, sessions, messages.
    echo: &'static [(u64, usize, u64)],
    /// Frame, sessions, bytes.
    bulk: &'static [(u64, usize, u64)],
}

const FULL: Plan = Plan {
    sessions: 5_000,
    rest: Duration::from_secs(3),
    rounds: 5,
    echo: &[(32, 50, 50_000), (1024, 50, 50_000), (65_536, 50, 5_000), (32, 1, 10_000), (1024, 1, 10_000)],
    bulk: &[(16_384, 4, 512 << 20), (1 << 20, 4, 512 << 20)],
};

const QUICK: Plan = Plan {
    sessions: 100,
    rest: Duration::from_millis(200),
    rounds: 1,
    echo: &[(32, 10, 2_000), (65_536, 4, 200), (32, 1, 500)],
    bulk: &[(65_536, 2, 16 << 20)],
};

fn bench(options: &Options) -> Result<()> {
    let plan = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds.unwrap_or(plan.rounds);
    let mut sessions = options.sessions.unwrap_or(plan.sessions);
    let descriptors = raise_descriptors()?;
    let most = usize::try_from(descriptors.saturating_sub(SPARE) / 2).unwrap_or(usize::MAX);
    let mut notes = Vec::new();
    if sessions > most {
        notes.push(format!(
            "{most} idle sessions instead of {sessions}: the limit is {descriptors} descriptors per process"
        ));
        sessions = most;
    }
    let contestants = options.contestants();
    let program = std::env::current_exe().attempt(|| "find this program".to_owned())?;
    let mut bench = measure::Bench::start(program, contestants.clone(), rounds)?;
    let progress = |what: &str| eprintln!("    {what}");
    let (mut memory, mut echo, mut bulk) = (Vec::new(), Vec::new(), Vec::new());
    if options.wants(options::What::Memory) {
        progress(&format!("{sessions} idle sessions"));
        memory = bench.idle(sessions, plan.rest)?;
    }
    for (payload, sessions, messages) in plan.echo.iter().filter(|_| options.wants(options::What::Echo)) {
        progress(&format!("{messages} messages of {payload} bytes over {sessions} sessions, {rounds} times"));
        echo.extend(bench.echo(*payload, *sessions, *messages)?);
    }
    for (frame, sessions, bytes) in plan.bulk.iter().filter(|_| options.wants(options::What::Bulk)) {
        progress(&format!(
            "{} MiB in frames of {frame} bytes over {sessions} sessions, {rounds} times",
            bytes >> 20
        ));
        bulk.extend(bench.bulk(*frame, *sessions, *bytes)?);
    }
    notes.append(&mut bench.notes);
    let report = Report { machine: machine(&contestants), rounds, memory, echo, bulk, notes };
    print!("{}", table::render(&report));
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).unwrap_or_default();
        fs::write(path, text + "\n").attempt(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Raises the soft limit to the hard limit, also for child processes; returns the limit.
pub(crate) fn raise_descriptors() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).attempt(|| "raise the limit of descriptors".to_owned())?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

fn machine(contestants: &[Contestant]) -> Machine {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpus.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let haproxy = contestants.iter().any(|one| matches!(one, Contestant::Haproxy | Contestant::HaproxyOne));
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cpu: model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.to_owned()),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        haproxy: haproxy.then(contestant::haproxy_version).flatten(),
    }
}
