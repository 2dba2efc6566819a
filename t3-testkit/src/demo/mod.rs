//! The main job shown with nothing else installed: sessions through t3-dispatch, ended in eight
//! ways, each explained by the record that comes out, and the explanation checked against what was
//! done.
//!
//! Uses the programs as an operator would: their command lines, their output. Draws no conclusion
//! of its own.

mod identity_proxy;
mod records;
pub mod report;
mod runner;
pub mod scenario;
mod screen;
mod setup;
mod stop;

use std::time::Duration;

pub use runner::Ended;

use self::{
    records::Records, report::Report, runner::DemoRunner, screen::Screen, setup::Fixture, stop::Stop,
};
use crate::sys;

/// How to run the demo.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Keep everything running at the end, for a browser.
    pub hold: bool,
    /// Time to read before each ending.
    pub pause: Duration,
}

/// Runs it and takes everything down again, whatever happens.
///
/// # Errors
/// [`Ended`].
pub fn run(options: Options) -> Result<Report, Ended> {
    let screen = Screen::new();
    let stop = Stop::on_signals()?;
    let records = Records::default();
    screen.dim("starting t3-trace, t3-dispatch and two stand-ins for t3 serve (alice's and bob's)");
    let mut fixture = Fixture::start(&screen, &records)?;
    if let Some(line) = lacking(&fixture) {
        screen.dim(&line);
    }
    screen.dim("lines with a dot say what is being done, the others are what `t3-trace live` prints");
    screen.print_held_lines();
    let report = DemoRunner::new(&mut fixture, &screen, &records, &stop).run(options.pause)?;
    screen.line("");
    for line in report.lines() {
        screen.line(&line);
    }
    if options.hold {
        hold(&fixture, &screen, &stop)?;
    }
    Ok(report)
}

/// One line on what is not there and what it costs.
fn lacking(fixture: &Fixture) -> Option<String> {
    if !sys::is_root() {
        return Some("not root: no kernel evidence (kernel=off), no vanished client, no OOM kill; run it as root to see all eight".into());
    }
    (!fixture.lacking.is_empty()).then(|| format!("this machine lacks: {}", fixture.lacking.join("; ")))
}

fn hold(fixture: &Fixture, screen: &Screen, stop: &Stop) -> Result<(), Ended> {
    screen.line("");
    screen
        .line("Running until Ctrl-C. Open one of these, then close the tab, or kill the stand-in behind it:");
    for user in setup::USERS {
        let address = identity_proxy::open(user, fixture.address)?;
        let pid = fixture.pid(user).map(|pid| format!("  (stand-in: pid {pid})")).unwrap_or_default();
        screen.line(&format!("  http://{address}/  as {user}{pid}"));
    }
    let address = fixture.address;
    screen.line(&format!(
        "t3-dispatch itself: curl -H 'X-authentik-username: {}' http://{address}/",
        setup::USERS[0]
    ));
    screen.line("");
    stop.wait();
    screen.dim("stopping");
    Ok(())
}
