//! Every supported kernel in a guest, as `cargo xtask vm-test` without options.

use anyhow::Result;

use super::CannotRun;
use crate::packaging;
use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::report::Step;
use crate::tools::{guest_programs, sudo};
use crate::vm::guests::{self, GuestPlan};

/// Runs the tier.
pub fn steps() -> Result<Vec<Step>> {
    if sudo::root() == sudo::Root::No {
        return Err(CannotRun("making file systems needs root, or sudo without a password".to_owned()).into());
    }
    apt_packages::ensure(PackageSet::Vm).map_err(|error| CannotRun(format!("{error:#}")))?;
    let programs = guest_programs::build()?;
    let packages = Some(packaging::for_guests(&programs)?);
    guests::steps(&GuestPlan { programs, packages, ..GuestPlan::default() })
}
