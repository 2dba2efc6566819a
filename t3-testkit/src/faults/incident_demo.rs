//! Faults as an incident report would have them: one after the other in front of one journald and
//! one t3-trace, each with a person of its own, and somebody who is back. For what is shown to
//! people; whether each fault gives the right record is the catalogue's own test.

use std::{collections::BTreeMap, time::Duration};

use t3_record::CloseRecord;

use super::{Expect, FIRST_EIGHT, Fault, Fixture, PERIOD, catalogue, runner::lacks};
use crate::{
    client::{Client, Config},
    error::{Result, TestError},
    harness::{Serve, Setup, Stack, free_port},
    journald::Journal,
};

/// Who they happen to.
const PERSONS: [&str; 10] =
    ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy"];

/// After the first eight: what the operator is asked about most.
const OFTEN_ASKED: [&str; 2] = ["serve_oom", "serve_busy"];

/// What must be as the truth has it, so that the play can be shown. Numbers are the machine's.
const SHOWN: [&str; 6] = ["verdict", "segment", "how", "closed_by", "confidence", "burst"];

/// The running programs, and what was played.
#[derive(Debug)]
pub struct IncidentDemo {
    /// dispatch and t3-trace.
    pub stack: Stack,
    /// Where the records are.
    pub journal: Journal,
    /// The records in order: fault, then record.
    pub records: Vec<(&'static str, CloseRecord)>,
    faults: Vec<Fault>,
    /// A session that is open at the end, with its serve.
    back: Option<(Serve, Client)>,
}

impl IncidentDemo {
    /// Starts the programs; nothing has happened yet.
    ///
    /// # Errors
    /// [`TestError::Missing`] when this machine lacks something that one of the faults needs; what
    /// the start met.
    pub fn start() -> Result<Self> {
        let all = catalogue();
        let names = FIRST_EIGHT.iter().chain(&OFTEN_ASKED);
        let faults: Vec<Fault> =
            names.filter_map(|name| all.iter().find(|fault| fault.name == *name).cloned()).collect();
        let journal = Journal::private()?;
        let mut setup = Setup::users(0)?;
        setup.users = PERSONS
            .iter()
            .map(|user| Ok(((*user).to_owned(), free_port()?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let stack = Stack::start(setup, &journal)?;
        for fault in &faults {
            if let Some(why) = fault.needs.iter().find_map(|need| lacks(*need, stack.kernel(), false)) {
                let what = format!("what {} needs", fault.name);
                return Err(TestError::Missing { what, remedy: why });
            }
        }
        Ok(Self { stack, journal, records: Vec::new(), faults, back: None })
    }

    /// Plays it. The last person comes back and stays.
    ///
    /// # Errors
    /// A fault cannot be injected, or there is no record of it.
    pub fn run(&mut self) -> Result<()> {
        for (fault, person) in self.faults.iter().zip(PERSONS) {
            let mut fixture = Fixture::new(&mut self.stack, &self.journal, person.to_owned());
            (fault.inject)(&mut fixture)?;
            let records = self.journal.wait_closes(1, fault.timeout, |record| record.user == person)?;
            self.records.extend(records.into_iter().map(|(record, _)| (fault.name, record)));
        }
        let person = PERSONS[self.faults.len().min(PERSONS.len()) - 1];
        let serve = self.stack.serve(person, &[], None)?;
        let mut config = Config::new(self.stack.address, person).header("X-Forwarded-For", "203.0.113.7");
        config.heartbeat = Some(PERIOD);
        let client = Client::connect(config)?;
        client.heartbeats(3)?;
        self.back = Some((serve, client));
        Ok(())
    }

    /// What was not as it should be, a line each: the machine starved, and another play may do
    /// better.
    #[must_use]
    pub fn mismatches(&self) -> Vec<String> {
        let mut mismatches = Vec::new();
        for (fault, person) in self.faults.iter().zip(PERSONS) {
            let of_fault: Vec<_> = self.records.iter().filter(|(name, _)| *name == fault.name).collect();
            if of_fault.len() != 1 {
                mismatches.push(format!("{}: {} records of {person}", fault.name, of_fault.len()));
            }
            for (_, record) in of_fault {
                // What the truth leaves to a busy machine is not left here.
                let busy = fault.expected.of("segment") == Some(&Expect::StallSegment);
                let expected = fault.expected.clone();
                let expected = if busy { expected.is("segment", "serve") } else { expected };
                let shown = |mismatch: &super::Mismatch| SHOWN.contains(&mismatch.key.as_str());
                mismatches.extend(expected.mismatches(record).into_iter().filter(shown).map(|mismatch| {
                    format!(
                        "{}: {} is {}, must be {}",
                        fault.name, mismatch.key, mismatch.got, mismatch.expected
                    )
                }));
            }
        }
        mismatches
    }

    /// For anything that should show on a screen soon.
    pub const SOON: Duration = Duration::from_secs(30);
}
