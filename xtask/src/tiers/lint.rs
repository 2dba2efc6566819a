//! Formatting, lints, documentation and the house rules.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::whole;
use crate::tiers::tidy;
use crate::tools::report::{Counts, Step};
use crate::tools::{cargo, ebpf, progress};

const LIMIT: Duration = Duration::from_secs(1200);

/// Runs the tier.
pub fn steps() -> Result<Vec<Step>> {
    let all = ["--workspace", "--exclude", cargo::EBPF_CRATE];
    let mut fmt = cargo::cargo();
    fmt.args(["fmt", "--all", "--check"]);
    let mut clippy = cargo::cargo();
    clippy.arg("clippy").args(all).args(["--all-targets", "--", "-D", "warnings"]);
    let mut clippy_ebpf = ebpf::command("clippy")?;
    clippy_ebpf.args(["--", "-D", "warnings"]);
    let mut docs = cargo::cargo();
    docs.args(["doc", "--no-deps"]).args(all).env("RUSTDOCFLAGS", "-D warnings");
    Ok(vec![
        whole("formatting", fmt, LIMIT)?,
        tidy_step()?,
        whole("clippy", clippy, LIMIT)?,
        whole("clippy of the eBPF programs", clippy_ebpf, LIMIT)?,
        whole("documentation", docs, LIMIT)?,
    ])
}

fn tidy_step() -> Result<Step> {
    let begin = Instant::now();
    progress::step("house rules");
    let findings = tidy::findings()?;
    findings.iter().for_each(|finding| progress::note(finding));
    let ok = findings.is_empty();
    let step = Step::new("house rules", ok, Counts::one(ok), begin.elapsed());
    let step = if ok { step } else { step.because(format!("{} findings", findings.len())) };
    step.say();
    Ok(step)
}
