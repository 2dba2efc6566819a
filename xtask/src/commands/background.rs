//! Work that runs beside the host tier, which waits for timers most of its time: fuzzing, and the
//! preparation of the guests.
//!
//! At the lowest priority, so that it takes only CPU time that the tests leave.

use std::thread::{Scope, ScopedJoinHandle};

use anyhow::{Result, anyhow};

use crate::tiers::tier::Tier;
use crate::tiers::timed::timed;
use crate::tiers::vm::{self, Prepared};
use crate::tools::progress;
use crate::tools::report::TierReport;

/// The lowest priority of setpriority(2).
const LOWEST: i32 = 19;

/// The threads of this work; without any, its results are made when they are asked for.
#[derive(Debug, Default)]
pub struct Background<'scope> {
    fuzz: Option<ScopedJoinHandle<'scope, TierReport>>,
    guests: Option<ScopedJoinHandle<'scope, Result<Prepared>>>,
}

impl<'scope> Background<'scope> {
    /// Starts what the selected tiers need.
    pub fn start(&mut self, scope: &'scope Scope<'scope, '_>, tiers: &[Tier]) {
        if tiers.contains(&Tier::Fuzz) {
            self.fuzz = Some(scope.spawn(|| at_lowest_priority(fuzz)));
        }
        if tiers.contains(&Tier::Vm) {
            self.guests = Some(scope.spawn(|| at_lowest_priority(vm::prepare)));
        }
    }

    /// The report of the fuzz tier.
    pub fn fuzz(&mut self) -> TierReport {
        match self.fuzz.take().map(ScopedJoinHandle::join) {
            Some(Ok(report)) => report,
            Some(Err(_)) => {
                timed(Tier::Fuzz.name(), || anyhow::bail!("the thread that ran the fuzz targets panicked"))
            }
            None => fuzz(),
        }
    }

    /// The guests' programs, packages and file systems; `None`: not prepared.
    pub fn guests(&mut self) -> Option<Result<Prepared>> {
        let joined = self.guests.take()?.join();
        Some(joined.unwrap_or_else(|_| Err(anyhow!("the thread that prepared the guests panicked"))))
    }
}

fn fuzz() -> TierReport {
    timed(Tier::Fuzz.name(), || Tier::Fuzz.steps(false))
}

/// Runs the work with a lower priority of this thread and the processes that it starts.
fn at_lowest_priority<T>(work: impl FnOnce() -> T) -> T {
    if let Err(error) = rustix::process::nice(LOWEST) {
        progress::note(&format!("cannot lower the priority: {error}"));
    }
    work()
}
