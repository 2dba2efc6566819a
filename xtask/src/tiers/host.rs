//! Tests that need root and the kernel of this host: real journald, real eBPF. One test at a time,
//! because they share the kernel; beside them run some that do not disturb others.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::{CannotRun, counted, counted_with_output, programs};
use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::cargo::Artifact;
use crate::tools::report::Step;
use crate::tools::run::run_checked;
use crate::tools::{progress, sudo};
use crate::vm::autobahn_image;

/// Timeout of one test program.
const LIMIT: Duration = Duration::from_secs(900);
/// Printed lines of a program in [`SHOWN_PROGRAMS`].
const SHOWN_LINES: usize = 250;
/// Run one after the other beside the other programs, which leave half of the CPU free. They count
/// and compare and do not measure durations, and each has a private journald and t3-trace.
const BESIDE: [&str; 8] = [
    "host_autobahn",
    "host_browser_chain",
    "host_foreign_namespace",
    "host_foreign_proxies",
    "host_heartbeat_peers",
    "host_relay_model",
    "host_restart",
    "host_try",
];
/// Run after the others, when those of [`BESIDE`] have ended: they load the host, or compare
/// durations.
const LAST: [&str; 5] =
    ["host_abuse", "host_bulk", "host_evidence_socket_abuse", "host_memory_limits", "host_soak"];
/// Skipped by `--quick`: long scenarios whose parts other programs test.
const NOT_QUICK: [&str; 12] = [
    "host_abuse",
    "host_demo",
    "host_evidence_socket_abuse",
    "host_foreign_namespace",
    "host_foreign_proxies",
    "host_heartbeat_peers",
    "host_kill_matrix",
    "host_memory_limits",
    "host_probe",
    "host_screens",
    "million_host",
    "orphans_host",
];
/// The output of these is printed also on success: the tables of faults, of kills and of foreign
/// proxies, and the time until a record.
const SHOWN_PROGRAMS: [&str; 5] =
    ["host_chaos", "host_faults", "host_foreign_proxies", "host_incidents", "host_kill_matrix"];
/// (type, mount point, a name that exists once it is mounted)
const MOUNTS: [(&str, &str, &str); 2] =
    [("tracefs", "/sys/kernel/tracing", "events"), ("bpf", "/sys/fs/bpf", "")];

/// Runs the tier. `quick` sets `T3_QUICK`: tests with many repetitions run fewer. `begins` is
/// called when the tests are compiled: from then on most of the CPU is free.
pub fn steps(quick: bool, begins: impl FnOnce()) -> Result<Vec<Step>> {
    if sudo::root() == sudo::Root::No {
        return Err(CannotRun("needs root, or sudo without a password".to_owned()).into());
    }
    apt_packages::ensure(PackageSet::Host).map_err(|error| CannotRun(format!("{error:#}")))?;
    mount()?;
    if let Err(error) = autobahn_image::ensure() {
        // Only its own test needs it, and fails.
        progress::note(&format!("cannot install the Autobahn suite: {error:#}"));
    }
    let all = programs::compile()?;
    begins();
    progress::step("tests as root, on the kernel of this host");
    let (skipped, host): (Vec<_>, Vec<_>) = all
        .iter()
        .filter(|program| programs::needs_host(program))
        .partition(|program| quick && NOT_QUICK.contains(&program.target.as_str()));
    for program in skipped {
        progress::note(&format!("skipped by --quick: {}", programs::label(program)));
    }
    let (beside, others): (Vec<_>, Vec<_>) =
        host.into_iter().partition(|program| BESIDE.contains(&program.target.as_str()));
    let (last, first): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|program| LAST.contains(&program.target.as_str()));
    let mut steps = std::thread::scope(|scope| {
        let beside = scope.spawn(|| in_turn(&beside, quick));
        let mut steps = in_turn(&first, quick)?;
        let panicked = || Err(anyhow!("the thread that ran test programs panicked"));
        steps.extend(beside.join().unwrap_or_else(|_| panicked())?);
        anyhow::Ok(steps)
    })?;
    steps.extend(in_turn(&last, quick)?);
    if steps.is_empty() {
        anyhow::bail!("no test program is named host_* or *_host; the tier would test nothing");
    }
    Ok(steps)
}

fn in_turn(programs: &[&Artifact], quick: bool) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for program in programs {
        steps.extend(one(program, quick)?);
    }
    Ok(steps)
}

/// Runs one test program as root.
fn one(program: &Artifact, quick: bool) -> Result<Option<Step>> {
    let Some(mut command) = sudo::command(&program.executable) else { return Ok(None) };
    // With CI set, a test fails instead of skipping for missing privileges.
    command.arg("--test-threads=1").env("CI", "true");
    if quick {
        command.env("T3_QUICK", "1");
    }
    let label = programs::label(program);
    if !SHOWN_PROGRAMS.contains(&program.target.as_str()) {
        return counted(&label, programs::in_its_crate(command, program), LIMIT).map(Some);
    }
    command.arg("--nocapture");
    let (step, output) = counted_with_output(&label, programs::in_its_crate(command, program), LIMIT)?;
    if step.counts.failed == 0 {
        progress::excerpt(&label, &output, SHOWN_LINES);
    }
    Ok(Some(step))
}

/// Mounts file systems that a host without systemd as PID 1 (a container) lacks.
fn mount() -> Result<()> {
    let mounted = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for (kind, place, inside) in MOUNTS {
        let there = mounted.lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next() == Some(place) && words.next() == Some(kind)
        });
        if there && Path::new(place).join(inside).exists() {
            continue;
        }
        progress::note(&format!("mounting {kind} on {place}"));
        if let Some(mut command) = sudo::command("mount") {
            command.args(["-t", kind, kind, place]);
            run_checked("mount", command)?;
        }
    }
    Ok(())
}
