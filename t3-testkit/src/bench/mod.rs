//! Cost of t3-dispatch compared with nginx, HAProxy and a bare relay, in the same run on the same
//! host. The results are ratios; absolute numbers depend on the host, so nothing passes or fails.
//!
//! Benchmark, client, proxy and backend are separate processes, so that their CPU and memory are
//! separate. The proxy has a CPU of its own. Client and backend are the same for every contestant
//! and do little work ([`wire`]).

pub mod backend;
pub mod baseline;
pub mod client;
pub mod compare;
pub mod contestant;
pub mod cpus;
mod driver;
pub mod ebpf;
mod ebpf_direct;
mod ebpf_time;
pub mod measure;
pub mod meter;
pub mod metric;
pub mod options;
pub mod plan;
pub mod relay;
pub mod report;
pub mod stats;
pub mod syscalls;
pub mod table;
pub mod wire;

use std::fs;

use contestant::Contestant;
use cpus::Cpus;
use metric::Workload;
use options::{Options, Part};
use plan::Plan;
use report::{Machine, Report};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::baseline::Baseline;
use crate::error::{Attempt, Result};

/// Descriptors of a proxy in addition to those of its sessions.
const SPARE: u64 = 200;

/// Runs the part selected on the command line.
pub fn run(options: &Options) -> Result<()> {
    match &options.part {
        Some(Part::Backend { port }) => backend::run(*port),
        Some(Part::Client(load)) => client::run(load),
        Some(Part::Relay { address, backend }) => relay::run(*address, *backend),
        Some(Part::Ebpf(work)) => ebpf::run(work),
        None => bench(options),
    }
}

fn bench(options: &Options) -> Result<()> {
    let committed = Baseline::read(&options.baseline())?;
    let mut notes = Vec::new();
    let plan = plan(options, raise_descriptors()?, &mut notes);
    let (contestants, cpus) = (options.contestants(), Cpus::choose(options.proxy_cpu, options.load_cpu)?);
    let machine = machine(&contestants, cpus);
    // Before any thread starts: all of them inherit it.
    cpus.pin_load()?;
    if cpus.are_shared() {
        notes.push("one CPU for the proxy and its load: times include waiting for the CPU".to_owned());
    }
    let mut report = Report {
        quick: options.quick,
        machine,
        rounds: plan.rounds,
        rows: Vec::new(),
        ratios: Vec::new(),
        calls: Vec::new(),
        idle: Vec::new(),
        notes,
    };
    measure_all(options, contestants, cpus, plan, &mut report)?;
    report.ratios = compare::all(&report.rows);
    print!("{}", table::render(&report));
    print!("{}", table::against(&report, committed.as_ref()));
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).unwrap_or_default();
        fs::write(path, text + "\n").attempt(|| format!("write {}", path.display()))?;
    }
    if options.save_baseline {
        Baseline::of(&report).write(&options.baseline())?;
    }
    Ok(())
}

fn measure_all(
    options: &Options,
    contestants: Vec<Contestant>,
    cpus: Cpus,
    plan: Plan,
    report: &mut Report,
) -> Result<()> {
    let program = std::env::current_exe().attempt(|| "find this program".to_owned())?;
    let dispatch = options.dispatch.clone();
    let mut bench = measure::Bench::start(measure::Options { program, dispatch, contestants, cpus, plan })?;
    for workload in options.workloads() {
        eprintln!("    {}", plan.title(workload));
        if workload == Workload::Idle {
            let (rows, mut idle) = bench.idle()?;
            report.rows.extend(rows);
            report.idle.append(&mut idle);
        } else {
            let (rows, calls) = bench.workload(workload)?;
            report.rows.extend(rows);
            report.calls.extend(calls);
        }
    }
    report.notes.append(&mut bench.notes);
    Ok(())
}

/// The amount of work of the options, up to what the limit of descriptors allows.
fn plan(options: &Options, descriptors: u64, notes: &mut Vec<String>) -> Plan {
    let mut plan = if options.quick { plan::QUICK } else { plan::FULL };
    plan.rounds = options.rounds.unwrap_or(plan.rounds);
    plan.idle = options.sessions.unwrap_or(plan.idle);
    let most = usize::try_from(descriptors.saturating_sub(SPARE) / 2).unwrap_or(usize::MAX);
    if plan.idle > most {
        notes.push(format!(
            "{most} idle sessions instead of {}: the limit is {descriptors} descriptors per process",
            plan.idle
        ));
        plan.idle = most;
    }
    plan
}

/// Raises the soft limit to the hard limit, also for child processes; returns the limit.
pub(crate) fn raise_descriptors() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).attempt(|| "raise the limit of descriptors".to_owned())?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

fn machine(contestants: &[Contestant], cpus: Cpus) -> Machine {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cpu: model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.to_owned()),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        peers: contestant::versions(contestants),
        cpus,
    }
}
