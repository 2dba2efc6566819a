//! Unit, property and loopback tests of every crate, then the examples in their documentation.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{counted, programs};
use crate::tools::report::Step;
use crate::tools::{cargo, progress};

/// Timeout of one test program.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs the tier.
pub fn steps() -> Result<Vec<Step>> {
    let all = programs::compile()?;
    progress::step("unit, property and loopback tests");
    let mut steps = Vec::new();
    for program in all.iter().filter(|program| !programs::needs_host(program)) {
        let command = programs::in_its_crate(Command::new(&program.executable), program);
        steps.push(counted(&programs::label(program), command, LIMIT)?);
    }
    progress::step("examples in the documentation");
    let mut doc = cargo::cargo();
    doc.args(["test", "--doc", "--workspace", "--exclude", cargo::EBPF_CRATE]);
    steps.push(counted("documentation examples", doc, LIMIT)?);
    Ok(steps)
}
