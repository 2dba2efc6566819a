//! Every supported kernel in a guest, as `cargo xtask vm-test` without options.

use std::path::PathBuf;

use anyhow::Result;

use super::CannotRun;
use crate::packaging;
use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::report::Step;
use crate::tools::{guest_programs, sudo};
use crate::vm::guests::{self, GuestPlan};

/// Programs and packages for the guests, whose file systems exist.
#[derive(Debug)]
pub struct Prepared {
    programs: Vec<(String, PathBuf)>,
    packages: [PathBuf; 2],
}

/// Makes all that the guests need.
pub fn prepare() -> Result<Prepared> {
    if sudo::root() == sudo::Root::No {
        return Err(CannotRun("making file systems needs root, or sudo without a password".to_owned()).into());
    }
    apt_packages::ensure(PackageSet::Vm).map_err(|error| CannotRun(format!("{error:#}")))?;
    let programs = guest_programs::build()?;
    let packages = packaging::for_guests(&programs)?;
    // The guests report an image that cannot be made.
    drop(guests::images(&GuestPlan::default().suites)?);
    Ok(Prepared { programs, packages })
}

/// Runs the tier.
pub fn steps(prepared: Option<Result<Prepared>>) -> Result<Vec<Step>> {
    let Prepared { programs, packages } = prepared.unwrap_or_else(prepare)?;
    guests::steps(&GuestPlan { programs, packages: Some(packages), ..GuestPlan::default() })
}
