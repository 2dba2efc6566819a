//! Formatting, lints, documentation, dependencies, generated pages and the rules of this
//! repository.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{dependencies, docs, whole};
use crate::tiers::rules;
use crate::tools::arch::Arch;
use crate::tools::report::{Counts, Step};
use crate::tools::{cargo, ebpf, progress, toolchain};

const LIMIT: Duration = Duration::from_secs(1200);

/// Runs the tier.
pub fn steps() -> Result<Vec<Step>> {
    let all = ["--workspace", "--exclude", cargo::EBPF_CRATE];
    let mut fmt = cargo::cargo();
    fmt.args(["fmt", "--all", "--check"]);
    let mut clippy = cargo::cargo();
    clippy.arg("clippy").args(all).args(["--all-targets", "--", "-D", "warnings"]);
    let mut clippy_ebpf = ebpf::command("clippy", Arch::HOST)?;
    clippy_ebpf.args(["--", "-D", "warnings"]);
    let mut rustdoc = cargo::cargo();
    rustdoc.args(["doc", "--no-deps"]).args(all).env("RUSTDOCFLAGS", "-D warnings");
    let mut deny = cargo::plain(&toolchain::ensure_cargo_deny()?);
    deny.args(["--locked", "check", "bans", "licenses", "sources"]);
    let mut steps = vec![
        whole("formatting", fmt, LIMIT)?,
        rules_step()?,
        whole("clippy", clippy, LIMIT)?,
        whole("clippy of the eBPF programs", clippy_ebpf, LIMIT)?,
        whole("documentation", rustdoc, LIMIT)?,
        whole("licenses, sources and versions of dependencies", deny, LIMIT)?,
        dependencies::step()?,
    ];
    steps.extend(docs::check()?);
    Ok(steps)
}

/// The rules of this repository, one step.
pub fn rules_step() -> Result<Step> {
    let begin = Instant::now();
    progress::step("rules of this repository");
    let files = rules::repository()?;
    let mut failed = Vec::new();
    for rule in rules::ALL {
        let findings = rule.findings(&files);
        findings.iter().for_each(|finding| progress::note(&format!("{}: {finding}", rule.name)));
        if !findings.is_empty() {
            failed.push(format!("{} {}", findings.len(), rule.name));
        }
    }
    let ok = failed.is_empty();
    let step = Step::new("rules of this repository", ok, Counts::one(ok), begin.elapsed());
    let step = if ok { step } else { step.because(format!("findings: {}", failed.join(", "))) };
    step.say();
    Ok(step)
}
