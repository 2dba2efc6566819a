//! Every supported kernel in a guest: what `cargo xtask vm-test` does, as a tier.

use anyhow::Result;

use super::CannotRun;
use crate::cli::{Cli, Command, VmTestArgs};
use crate::commands::vm_test;
use crate::tools::apt_packages::User;
use crate::tools::report::Step;
use crate::tools::{apt_packages, sudo};

/// Runs the tier.
pub fn steps() -> Result<Vec<Step>> {
    if sudo::root() == sudo::Root::No {
        return Err(CannotRun("making file systems needs root, or sudo without a password".to_owned()).into());
    }
    apt_packages::ensure(User::Vm).map_err(|error| CannotRun(format!("{error:#}")))?;
    vm_test::steps(&defaults()?)
}

/// The command's own defaults, so that they are written down once.
fn defaults() -> Result<VmTestArgs> {
    use clap::Parser as _;
    match Cli::try_parse_from(["xtask", "vm-test"])?.command {
        Command::VmTest(args) => Ok(args),
        other => anyhow::bail!("`vm-test` was read as {other:?}"),
    }
}
