//! The demo: eight faults of the catalogue on this host with nothing else installed, each with a
//! line of narration, the line of `t3-trace live`, and a check of its record.
//!
//! Uses the command lines and the output of the programs, as an operator does.

pub mod foreign;
pub(crate) mod identity_proxy;
pub mod report;
mod runner;
pub mod scenario;
pub(crate) mod screen;
pub(crate) mod stop;

use std::time::Duration;

use t3_record::KernelSource;

pub use runner::Ended;

use self::{report::Report, runner::DemoRunner, scenario::USERS, screen::Screen, stop::Stop};
use crate::{
    error::Result,
    harness::{Cgroup, Stack},
    sys,
};

#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Keeps everything running at the end, for a browser.
    pub hold: bool,
    /// Pause before each fault, for reading.
    pub pause: Duration,
}

/// Runs the demo; stops all programs also after an error.
pub fn run(options: Options) -> Result<Report, Ended> {
    let screen = Screen::new();
    let stop = Stop::on_signals()?;
    screen.dim("starting t3-trace and t3-dispatch; each session gets a fake t3 serve");
    let mut runner = DemoRunner::start(&screen, &stop)?;
    if let Some(line) = missing(runner.stack()) {
        screen.dim(&line);
    }
    screen.dim("lines with a dot announce a fault, all others are the output of `t3-trace live`");
    screen.print_held_lines();
    let report = runner.run(options.pause)?;
    screen.line("");
    for line in report.lines() {
        screen.line(&line);
    }
    if options.hold {
        hold(runner.stack(), &screen, &stop)?;
    }
    Ok(report)
}

/// Reason why the demo cannot show all faults: not root, or no kernel evidence.
fn missing(stack: &Stack) -> Option<String> {
    if !sys::is_root() {
        return Some("not root: no kernel evidence (kernel=off), no vanished client, no OOM kill; run as root to see all eight faults".into());
    }
    if stack.kernel() != KernelSource::Off {
        return None;
    }
    let why = stack.status().ok()?.hooks.into_iter().find_map(|hook| hook.why);
    Some(format!("no kernel evidence: {}", why.unwrap_or_else(|| "t3-trace has no hooks".to_owned())))
}

fn hold(stack: &Stack, screen: &Screen, stop: &Stop) -> Result<(), Ended> {
    screen.line("");
    screen.line("Running until Ctrl-C. Open one of these addresses, then close the tab or kill its serve:");
    let mut serves = Vec::new();
    for user in USERS {
        let cgroup = Cgroup::new().ok();
        let serve = stack.serve(user, &["--user", user], cgroup.as_ref())?;
        let address = identity_proxy::open(user, stack.address, 0)?;
        screen.line(&format!("  http://{address}/  as {user}  (serve: pid {})", serve.process.pid()));
        // serve is dropped first, because only an empty cgroup can be removed.
        serves.push((serve, cgroup));
    }
    let [user, _] = USERS;
    screen.line(&format!("t3-dispatch: curl -H 'X-authentik-username: {user}' http://{}/", stack.address));
    screen.line("");
    stop.wait();
    screen.dim("stopping");
    Ok(())
}
