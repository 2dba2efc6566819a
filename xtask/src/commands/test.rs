//! `cargo xtask test`: every tier in order, even after a failure, and all failures at the end.
//!
//! A tier that cannot run here prints the reason. With `CI` in the environment this is a failure.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::commands::background::Background;
use crate::tiers;
use crate::tiers::tier::Tier;
use crate::tiers::timed::timed;
use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::arch::Arch;
use crate::tools::ebpf;
use crate::tools::report::{Counts, Report, Step};

#[derive(Debug, Args)]
pub struct TestArgs {
    /// Skip the fuzz and vm tiers and the longest host tests: about four minutes after a build.
    #[arg(long)]
    pub quick: bool,
    /// Run only this tier (repeatable).
    #[arg(long = "tier", value_name = "NAME")]
    pub tiers: Vec<Tier>,
}

pub fn run(args: &TestArgs) -> Result<ExitCode> {
    let strict = std::env::var_os("CI").is_some();
    let mut report = Report::default();
    report.tiers.push(timed("build", || {
        apt_packages::ensure(PackageSet::Build)?;
        let begin = Instant::now();
        ebpf::build(Arch::HOST)?;
        Ok(vec![Step::new("eBPF programs", true, Counts::one(true), begin.elapsed())])
    }));
    let tiers = chosen(args);
    std::thread::scope(|scope| {
        let mut background = Background::default();
        for &tier in &tiers {
            match tier {
                Tier::Host => report.tiers.push(timed(tier.name(), || {
                    tiers::host::steps(args.quick, || background.start(scope, &tiers))
                })),
                Tier::Fuzz => report.tiers.push(background.fuzz()),
                Tier::Vm => {
                    let prepared = background.guests();
                    report.tiers.push(timed(tier.name(), || tiers::vm::steps(prepared)));
                }
                Tier::Lint | Tier::Unit => report.tiers.push(timed(tier.name(), || tier.steps(args.quick))),
            }
        }
    });
    println!();
    report.closing(strict).iter().for_each(|line| println!("{line}"));
    let counts = report.counts(strict);
    let ok = counts.failed == 0 && counts.passed > 0;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(args: &TestArgs) -> Vec<Tier> {
    let wanted = |tier: &Tier| {
        if args.tiers.is_empty() {
            !(args.quick && matches!(tier, Tier::Fuzz | Tier::Vm))
        } else {
            args.tiers.contains(tier)
        }
    };
    Tier::ALL.into_iter().filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::{TestArgs, Tier, chosen};

    #[test]
    fn quick_skips_the_slow_tiers_unless_selected() {
        let names = |quick, tiers: &[Tier]| chosen(&TestArgs { quick, tiers: tiers.to_vec() });
        assert_eq!(names(false, &[]), Tier::ALL);
        assert_eq!(names(true, &[]), [Tier::Lint, Tier::Unit, Tier::Host]);
        assert_eq!(names(true, &[Tier::Vm]), [Tier::Vm]);
    }
}
