//! `cargo xtask vm-test`: the project's tests in guests with Debian kernels, systemd as PID 1 and
//! kprobes, in software emulation (no /dev/kvm needed).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use crate::packaging;
use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::guest_programs;
use crate::tools::report::{Report, TierReport};
use crate::vm::guests::{self, GuestPlan, Workload};
use crate::vm::suite::Suite;

#[derive(Debug, Args)]
pub struct VmTestArgs {
    /// Debian releases to boot [default: all].
    #[arg(long = "suite", value_name = "SUITE", num_args = 1..)]
    pub suites: Vec<Suite>,
    /// Run only this fault (repeatable).
    #[arg(long, value_name = "NAME", conflicts_with = "exec")]
    pub only: Vec<String>,
    /// Runs of the faults in one boot; the results of the last run are kept.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..), conflicts_with = "exec")]
    pub times: u8,
    /// Run this program in the guest instead of the project's VM tests.
    #[arg(long, value_name = "PATH")]
    pub exec: Option<PathBuf>,
    /// Test only the Debian packages: install, use, restart with sessions, upgrade, purge.
    #[arg(long, conflicts_with_all = ["exec", "only", "check_guest"])]
    pub packages: bool,
    /// Test only records on an installed host: full disk, vacuum of the journal, steps of the
    /// clock, hard resets.
    #[arg(long, conflicts_with_all = ["exec", "only", "check_guest", "packages"])]
    pub exactly_once: bool,
    /// Check only the guests (BTF, PSI, cgroup v2, kprobes, systemd), without the project's VM
    /// tests.
    #[arg(long, conflicts_with = "exec")]
    pub check_guest: bool,
    /// Timeout for one guest, from power-on to power-off, in seconds.
    #[arg(long, default_value_t = GuestPlan::default().limit.as_secs(), value_name = "SECONDS")]
    pub timeout: u64,
    /// Show the consoles of the guests while they boot.
    #[arg(long)]
    pub console: bool,
}

pub fn run(args: &VmTestArgs) -> Result<ExitCode> {
    let begin = Instant::now();
    apt_packages::ensure(PackageSet::Vm)?;
    let steps = guests::steps(&plan(args)?)?;
    let report =
        Report { tiers: vec![TierReport { name: "vm", steps, time: begin.elapsed(), not_run: None }] };
    report.closing(true).iter().for_each(|line| println!("{line}"));
    Ok(if report.counts(true).failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds what the guests run.
fn plan(args: &VmTestArgs) -> Result<GuestPlan> {
    let mut plan = GuestPlan {
        workload: workload(args),
        limit: Duration::from_secs(args.timeout),
        show_console: args.console,
        ..GuestPlan::default()
    };
    if !args.suites.is_empty() {
        plan.suites.clone_from(&args.suites);
    }
    let with_packages =
        matches!(plan.workload, Workload::Packages | Workload::ExactlyOnce | Workload::All { .. });
    if with_packages || matches!(plan.workload, Workload::Faults { .. }) {
        plan.programs = guest_programs::build()?;
    }
    if with_packages {
        plan.packages = Some(packaging::for_guests(&plan.programs)?);
    }
    Ok(plan)
}

fn workload(args: &VmTestArgs) -> Workload {
    if args.check_guest {
        Workload::CheckGuest
    } else if let Some(path) = &args.exec {
        Workload::Program(path.clone())
    } else if !args.only.is_empty() {
        Workload::Faults { only: args.only.clone(), times: args.times }
    } else if args.exactly_once {
        Workload::ExactlyOnce
    } else if args.packages {
        Workload::Packages
    } else {
        Workload::All { times: args.times }
    }
}
