//! Test of the Debian packages under systemd: install, use, restart, reboot, upgrade, purge.
//!
//! For a disposable guest: it creates users, kills processes and reboots. It uses apt, systemctl
//! and the programs as an operator does, and checks the result from outside.

mod exactly_once;
mod fixture;
mod install;
mod kept;
mod lifecycle;
mod permissions;
mod probe;
mod purge;
mod sessions;
mod shell;
mod socket_access;
mod steps;
mod walk;

use std::path::PathBuf;

pub use socket_access::knock;

use crate::{error::Result, harness::forget_template};
use fixture::Fixture;
use steps::Steps;

/// Source of the commands that install the packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Commands {
    /// One call of apt-get
    Apt,
    /// docs/INSTALL.md, also for the upgrade and the removal
    Page,
    /// The migration in docs/INSTALL.md, on a host with the Go binary
    Migration,
}

#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "t3-package-test",
    about = "Installs, uses, upgrades and purges the packages in a disposable guest"
)]
pub struct Options {
    /// Folder with `first/` and `later/`, each with all packages
    #[arg(long, default_value = "/opt/t3/packages")]
    pub packages: PathBuf,
    /// Only install, open one session, keep sessions over restarts, purge
    #[arg(long)]
    pub brief: bool,
    /// Source of the commands that install the packages
    #[arg(long, default_value = "apt", value_name = "SOURCE")]
    pub commands: Commands,
    /// Sessions that are open during restarts
    #[arg(long, default_value_t = 300, value_name = "N", value_parser = clap::value_parser!(u16).range(20..=400))]
    pub sessions: u16,
    /// Restarts of t3-dispatch with these sessions
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub restarts: u16,
    /// Only install, then fill the disk, rotate the journal, step the clock and have the guest
    /// reset: one record per session
    #[arg(long, conflicts_with = "brief")]
    pub exactly_once: bool,
    /// Only send Hello in this role (dispatch or subscriber) to the evidence socket, as the current
    /// user
    #[arg(long, value_name = "ROLE")]
    pub knock: Option<String>,
}

/// Runs the test up to the reboot or, after it, to the end; true if all steps so far have passed.
pub fn run(options: &Options) -> Result<bool> {
    if options.exactly_once {
        return exactly_once::run(options);
    }
    if let Some(mut steps) = steps::after_reboot()? {
        println!("after the reboot:");
        second_part(&mut steps, options);
        return Ok(steps.close());
    }
    // The fault catalogue may have run in the same guest before.
    forget_template()?;
    let mut steps = Steps::default();
    first_part(&mut steps, options);
    if options.brief {
        kept::run(&mut steps, options);
        purge::run(&mut steps, options);
        return Ok(steps.close());
    }
    steps.step("reboot requested", || {
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
    sessions::network(steps, &mut fixture);
    if !options.brief {
        sessions::pairing(steps);
        sessions::out_of_memory(steps, &mut fixture);
        permissions::run(steps, &mut fixture);
        lifecycle::restarts(steps, &mut fixture);
    }
    probe::run(steps);
    install::sandbox(steps);
}

fn second_part(steps: &mut Steps, options: &Options) {
    match Fixture::open() {
        Ok(mut fixture) => {
            lifecycle::rebooted(steps, &mut fixture);
            kept::run(steps, options);
            lifecycle::upgraded(steps, &mut fixture);
        }
        Err(error) => steps.step("a journal to read", || Err::<String, _>(error)),
    }
    purge::run(steps, options);
}
