//! A program of t3-testkit that runs the programs of this workspace in the foreground, as root if
//! possible, because kernel events need root.

use std::process::Command;

use anyhow::{Result, bail};

use crate::tools::programs;
use crate::tools::{cargo, progress, sudo};

const PACKAGE: &str = "t3-testkit";

/// Builds everything and returns the command. The caller replaces xtask with it: Ctrl-C then
/// reaches only that program, which stops its children before the prompt returns.
pub fn command(name: &str) -> Result<Command> {
    programs::build()?;
    let Some(program) = cargo::binary(PACKAGE, name, false)? else {
        bail!("{PACKAGE} has no program `{name}`");
    };
    if let Some(command) = sudo::command(&program) {
        return Ok(command);
    }
    progress::note("no root and no `sudo -n`: runs without kernel evidence (kernel=off)");
    Ok(Command::new(&program))
}
