//! Faults of the catalogue one after the other in front of one stack, each with the user that it
//! happens to: for the demo and docs/SCREENS.md.
//!
//! Whether each fault gives the expected record as a whole is the catalogue's own test.

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
    /// dispatch and t3-trace.
    pub stack: Stack,
    /// Source of kernel evidence on this machine.
    pub kernel: KernelSource,
    /// Each fault with its user and the number of the user's earlier records.
    injected: Vec<(Fault, String, usize)>,
}

impl IncidentDemo {
    /// Starts the programs.
    pub fn start(setup: Setup, journal: Journal) -> Result<Self> {
        let stack = Stack::start(setup, journal)?;
        let kernel = stack.kernel();
        Ok(Self { stack, kernel, injected: Vec::new() })
    }

    /// Why a fault is not possible on this machine.
    #[must_use]
    pub fn lacks(&self, fault: &Fault) -> Option<String> {
        fault.needs.iter().find_map(|need| lacks(*need, self.kernel, false))
    }

    /// Injects a fault and waits for its record. A record that does not come is for the caller of
    /// [`Self::records`] to see.
    pub fn inject(&mut self, fault: Fault, user: &str) -> Result<()> {
        let earlier = self.closes(user)?.len();
        let mut fixture = Fixture::new(&mut self.stack, user.to_owned());
        (fault.inject)(&mut fixture)?;
        let sessions = earlier + fault.sessions;
        let _ = self.stack.journal.wait_closes(sessions, fault.timeout, |record| record.user == user);
        self.injected.push((fault, user.to_owned(), earlier));
        Ok(())
    }

    /// The records of each fault so far: one, if all went well.
    pub fn records(&self) -> Result<Vec<(&Fault, Vec<CloseRecord>)>> {
        let mut records = Vec::new();
        for (n, (fault, user, earlier)) in self.injected.iter().enumerate() {
            let mut closes = self.closes(user)?;
            // A surplus record belongs to the fault before it.
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
