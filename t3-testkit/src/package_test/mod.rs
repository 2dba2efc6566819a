//! The life of the Debian packages on a machine with systemd: installed, used, restarted, rebooted,
//! upgraded, purged. For a guest that is thrown away afterwards: it makes users, kills processes
//! and reboots.
//!
//! Everything is done as an operator does it, with apt, systemctl and the programs themselves, and
//! looked at from outside.

mod fixture;
mod install;
mod lifecycle;
mod permissions;
mod purge;
mod sessions;
mod shell;
mod socket_access;
mod steps;

use std::path::PathBuf;

pub use socket_access::knock;

use crate::{error::Result, harness::forget_template};
use fixture::Fixture;
use steps::Steps;

/// What is to be done.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "t3-package-test",
    about = "Installs, uses, upgrades and purges the packages, in a guest made for it"
)]
pub struct Options {
    /// The folder with `first/` and `later/`, each with both packages.
    #[arg(long, default_value = "/opt/t3/packages")]
    pub packages: PathBuf,
    /// Install, one session, purge.
    #[arg(long)]
    pub brief: bool,
    /// Only knock at the evidence socket in this role, as whoever runs it, and say what comes:
    /// dispatch or subscriber.
    #[arg(long, value_name = "ROLE")]
    pub knock: Option<String>,
}

/// Does it; whether everything was as it should be. A part that ends in a reboot says nothing of
/// what comes after it.
pub fn run(options: &Options) -> Result<bool> {
    if let Some(mut steps) = steps::after_reboot()? {
        println!("after the reboot:");
        second_part(&mut steps, options);
        return Ok(steps.close());
    }
    // Where the catalogue of faults has run before, in the same guest.
    forget_template()?;
    let mut steps = Steps::default();
    first_part(&mut steps, options);
    if options.brief {
        purge::run(&mut steps);
        return Ok(steps.close());
    }
    steps.step("reboot asked for", || {
        shell::shell("systemctl enable t3-serve@alice t3-serve@bob 2>&1 && touch /run/t3-vm.reboot")
    });
    steps.keep()?;
    Ok(steps.close())
}

fn first_part(steps: &mut Steps, options: &Options) {
    install::run(steps, options);
    let mut fixture = match Fixture::open() {
        Ok(fixture) => fixture,
        Err(error) => return steps.step("a journal to read", || Err::<String, _>(error)),
    };
    sessions::first(steps, &mut fixture);
    if !options.brief {
        sessions::pairing(steps);
        sessions::out_of_memory(steps, &mut fixture);
        permissions::run(steps, &mut fixture);
        lifecycle::restarts(steps, &mut fixture);
    }
    install::sandbox(steps);
}

fn second_part(steps: &mut Steps, options: &Options) {
    match Fixture::open() {
        Ok(mut fixture) => {
            lifecycle::rebooted(steps, &mut fixture);
            lifecycle::upgrade(steps, &mut fixture, options);
        }
        Err(error) => steps.step("a journal to read", || Err::<String, _>(error)),
    }
    purge::run(steps);
}
