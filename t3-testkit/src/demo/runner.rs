//! Runner of the scenarios: announces each, injects its fault, and waits until `t3-trace live`
//! shows the close. Does not derive verdicts.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{
    report::{Outcome, Report, Row},
    scenario::{SCENARIOS, Scenario, USERS},
    screen::Screen,
    stop::Stop,
};
use crate::{
    error::{Result, TestError},
    faults::{self, incident_demo::IncidentDemo},
    harness::{Process, Setup, Stack, Stream, find},
    journald::Journal,
    sys,
};

/// Timeouts of dispatch, short so that a vanished client is detected in seconds.
const DISPATCH_TIMEOUTS: [&str; 4] = ["--keepalive", "1s", "--user-timeout", "3s"];
/// Timeout for a line of `live` after the record.
const LINE_TIMEOUT: Duration = Duration::from_secs(3);

/// Reason why the demo did not finish.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("stopped")]
    Stopped,
    /// A program or the set-up failed.
    #[error(transparent)]
    Failed(#[from] TestError),
}

/// The running programs and the output of the demo.
#[derive(Debug)]
pub struct DemoRunner<'a> {
    demo: IncidentDemo,
    live: Process,
    screen: &'a Screen,
    stop: &'a Stop,
}

impl<'a> DemoRunner<'a> {
    /// Starts t3-trace, dispatch and `t3-trace live`.
    pub fn start(screen: &'a Screen, stop: &'a Stop) -> Result<Self> {
        let mut setup = Setup::named(USERS)?;
        setup.trace = true;
        setup.dispatch_arguments.extend(DISPATCH_TIMEOUTS.map(str::to_owned));
        if sys::is_root() {
            setup.accept_links();
        }
        let demo = IncidentDemo::start(setup, Journal::on_stderr())?;
        let mut live = Command::new(find("t3-trace")?);
        live.arg("live").arg("--socket").arg(demo.stack.socket());
        if !screen.colours() {
            live.arg("--plain");
        }
        let shown = screen.clone();
        let live = Process::start_observed(live, move |stream, line| {
            if stream == Stream::Stdout {
                shown.program(line);
            }
        })?;
        demo.stack.until_subscribers(1)?;
        Ok(Self { demo, live, screen, stop })
    }

    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.demo.stack
    }

    /// Runs all scenarios, with a pause before each.
    pub fn run(&mut self, pause: Duration) -> Result<Report, Ended> {
        let mut rows = Vec::new();
        for scenario in SCENARIOS {
            let fault = faults::fault(scenario.fault)?;
            let verdicts = fault.verdicts(self.demo.kernel);
            let outcome = match self.demo.lacks(&fault) {
                Some(why) => Outcome::NotShown(why),
                None => {
                    self.until(pause, || false)?;
                    self.show(&scenario, fault)?;
                    Outcome::Records(Vec::new())
                }
            };
            rows.push(Row { scenario, verdicts, outcome });
        }
        // Read last, because a surplus record is an error too and may come late.
        let mut records = self.demo.records()?.into_iter();
        for Row { outcome, .. } in &mut rows {
            if let Outcome::Records(found) = outcome {
                *found = records.next().map(|(_, records)| records).unwrap_or_default();
            }
        }
        Ok(Report { kernel: self.demo.kernel, rows })
    }

    fn show(&mut self, scenario: &Scenario, fault: faults::Fault) -> Result<(), Ended> {
        self.screen.dim(scenario.narration);
        let shown = self.screen.shown();
        self.demo.inject(fault, scenario.user).map_err(|error| self.failed(scenario, &error.to_string()))?;
        if self.until(LINE_TIMEOUT, || self.screen.shown() > shown)? {
            return Ok(());
        }
        Err(self.failed(scenario, "no line of t3-trace live").into())
    }

    fn failed(&self, scenario: &Scenario, got: &str) -> TestError {
        let stderr = self.demo.stack.stderr() + &self.live.stderr();
        TestError::Unexpected { what: scenario.narration.to_owned(), got: format!("{got}\n{stderr}") }
    }

    /// Polls until `holds`; false after the limit. Ctrl-C ends the wait.
    fn until(&self, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<bool, Ended> {
        let deadline = Instant::now() + limit;
        loop {
            if self.stop.requested() {
                return Err(Ended::Stopped);
            }
            if holds() {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
