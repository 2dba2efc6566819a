//! Faults of the catalogue one after the other on one stack, each with a chosen user: for the demo
//! and docs/SCREENS.md.
//!
//! The complete records are compared by the test of the catalogue, not here.

use t3_record::{CloseRecord, KernelSource};

use super::{Fault, Fixture, runner::lacks};
use crate::{
    error::Result,
    harness::{Setup, Stack},
    journald::Journal,
};

/// The running programs and the faults so far.
#[derive(Debug)]
pub struct IncidentDemo {
    pub stack: Stack,
    /// Source of kernel evidence on this host.
    pub kernel: KernelSource,
    /// Each fault with its user and the number of the user's earlier records.
    injected: Vec<(Fault, String, usize)>,
}

impl IncidentDemo {
    pub fn start(setup: Setup, journal: Journal) -> Result<Self> {
        let stack = Stack::start(setup, journal)?;
        let kernel = stack.kernel();
        Ok(Self { stack, kernel, injected: Vec::new() })
    }

    /// Why a fault is not possible on this host.
    #[must_use]
    pub fn lacks(&self, fault: &Fault) -> Option<String> {
        fault.needs.iter().find_map(|need| lacks(*need, self.kernel, false))
    }

    /// Injects a fault and waits for its record. [`Self::records`] shows a missing record.
    pub fn inject(&mut self, fault: Fault, user: &str) -> Result<()> {
        let earlier = self.closes(user)?.len();
        let mut fixture = Fixture::new(&mut self.stack, user.to_owned());
        (fault.inject)(&mut fixture)?;
        let sessions = earlier + fault.sessions;
        let _ = self.stack.journal.wait_closes(sessions, fault.timeout, |record| record.user == user);
        self.injected.push((fault, user.to_owned(), earlier));
        Ok(())
    }

    /// The records of each fault so far: exactly one if correct.
    pub fn records(&self) -> Result<Vec<(&Fault, Vec<CloseRecord>)>> {
        let mut records = Vec::new();
        for (n, (fault, user, earlier)) in self.injected.iter().enumerate() {
            let mut closes = self.closes(user)?;
            // A surplus record belongs to the previous fault.
            let next = self.injected.iter().skip(n + 1).find(|(_, other, _)| other == user);
            closes.truncate(next.map_or(usize::MAX, |(_, _, earlier)| *earlier));
            records.push((fault, closes.split_off((*earlier).min(closes.len()))));
        }
        Ok(records)
    }

    fn closes(&self, user: &str) -> Result<Vec<CloseRecord>> {
        let closes = self.stack.journal.closes(|record| record.user == user)?;
        Ok(closes.into_iter().map(|(record, _)| record).collect())
    }
}
