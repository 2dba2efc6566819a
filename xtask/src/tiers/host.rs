//! Tests that need root and this machine's kernel: real journald, real eBPF on the tracepoints the
//! kernel has. One program at a time, one test at a time, because they share the kernel; but for
//! two at the end.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::{CannotRun, counted, programs, told};
use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::cargo::Artifact;
use crate::tools::report::Step;
use crate::tools::run::run_checked;
use crate::tools::{progress, sudo};
use crate::vm::autobahn_image;

/// For one test program.
const LIMIT: Duration = Duration::from_secs(900);
/// Lines of what a program tells.
const SHOWN: usize = 200;
/// Run at the same time, after the others: one waits for five minutes with a third of a core, the
/// other computes. Neither judges how long anything takes, and both have a journald and a t3-trace
/// of their own.
const BESIDE: [&str; 2] = ["host_autobahn", "host_soak"];
/// Left out by `--quick`, which is for the minutes between two changes: what plays whole stories
/// over again whose parts others test.
const NOT_QUICK: [&str; 4] = ["host_demo", "host_probe", "host_screens", "million_host"];
/// What these find is wanted also when all is well: the table of faults, and how long a record
/// takes.
const TELLS: [&str; 3] = ["host_chaos", "host_faults", "host_incidents"];
/// (kind, where, a name that is there once it is mounted)
const MOUNTS: [(&str, &str, &str); 2] =
    [("tracefs", "/sys/kernel/tracing", "events"), ("bpf", "/sys/fs/bpf", "")];

/// Runs the tier. `quick`: tests that can do with less of the same are told to (`T3_QUICK`).
/// `waits` is called when only what waits for minutes is left to do: from then on the machine has
/// time for others.
pub fn steps(quick: bool, waits: impl FnOnce()) -> Result<Vec<Step>> {
    if sudo::root() == sudo::Root::No {
        return Err(CannotRun("needs root, or sudo without a password".to_owned()).into());
    }
    apt_packages::ensure(PackageSet::Host).map_err(|error| CannotRun(format!("{error:#}")))?;
    mount()?;
    if let Err(error) = autobahn_image::ensure() {
        // Its own test fails for the lack of it; the others can do without.
        progress::note(&format!("the Autobahn suite cannot be made: {error:#}"));
    }
    let all = programs::compile()?;
    progress::step("tests as root, on this machine's kernel");
    let (left_out, host): (Vec<_>, Vec<_>) = all
        .iter()
        .filter(|program| programs::needs_host(program))
        .partition(|program| quick && NOT_QUICK.contains(&program.target.as_str()));
    for program in left_out {
        progress::note(&format!("left out by --quick: {}", programs::label(program)));
    }
    let (beside, in_turn): (Vec<_>, Vec<_>) =
        host.into_iter().partition(|program| BESIDE.contains(&program.target.as_str()));
    let mut steps = Vec::new();
    for program in in_turn {
        steps.extend(one(program, quick)?);
    }
    waits();
    let together: Vec<Result<Option<Step>>> = std::thread::scope(|scope| {
        let running: Vec<_> =
            beside.into_iter().map(|program| scope.spawn(move || one(program, quick))).collect();
        let died = || Err(anyhow!("the thread that watched a test program died"));
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| died())).collect()
    });
    for step in together {
        steps.extend(step?);
    }
    if steps.is_empty() {
        anyhow::bail!("no test program is named host_* or *_host: this tier would test nothing");
    }
    Ok(steps)
}

/// Runs one test program as root.
fn one(program: &Artifact, quick: bool) -> Result<Option<Step>> {
    let Some(mut command) = sudo::command(&program.executable) else { return Ok(None) };
    // This tier has what it needs: a test that would be content without it has to fail here.
    command.arg("--test-threads=1").env("CI", "true");
    if quick {
        command.env("T3_QUICK", "1");
    }
    let label = programs::label(program);
    if !TELLS.contains(&program.target.as_str()) {
        return counted(&label, programs::in_its_crate(command, program), LIMIT).map(Some);
    }
    command.arg("--nocapture");
    let (step, output) = told(&label, programs::in_its_crate(command, program), LIMIT)?;
    if step.counts.failed == 0 {
        progress::excerpt(&label, &output, SHOWN);
    }
    Ok(Some(step))
}

/// Mounts what systemd would have mounted; a machine without systemd as PID 1 (a container) lacks
/// it.
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
