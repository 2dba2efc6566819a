//! The catalogue of faults: each injects one way to die with real processes and sockets and states the truth about it.
//!
//! One table for every tier: a fault that the machine cannot have says why, it is never passed over in silence.

mod dispatch;
mod downstream;
mod opening;
mod report;
mod run;
mod truth;
mod upstream;
mod world;

pub use report::{Outcome, Row, print};
pub use run::{Options, run};
pub use truth::{Expect, Miss, Truth};
pub use world::{PERIOD, World};

use std::time::Duration;

use crate::error::Result;

/// What a fault asks of the machine, besides a serve and dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Root.
    Root,
    /// t3-trace with its programs loaded: without kernel evidence the truth cannot be known.
    Kernel,
    /// A network namespace of its own and iproute2.
    Netns,
    /// A memory limit on a cgroup.
    MemoryLimit,
    /// Memory limits and counters on cgroup v2.
    MemoryV2,
    /// cgroup v2.
    CgroupV2,
    /// `ss -K` (`CONFIG_INET_DIAG_DESTROY`).
    SockDestroy,
}

/// One way to die.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Its name, unique, as `--only` takes it.
    pub name: &'static str,
    /// The truth about its record.
    pub truth: Truth,
    /// What it asks of the machine.
    pub needs: &'static [Need],
    /// Sessions it opens, each with a record of its own that the truth holds for.
    pub sessions: usize,
    /// It ends dispatch or t3-trace, so it gets a stack to itself.
    pub own_stack: bool,
    /// How long the record may take: timers of the kernel take their time.
    pub patience: Duration,
    /// Injects it.
    pub inject: fn(&mut World<'_>) -> Result<()>,
}

impl Fault {
    fn new(name: &'static str, truth: Truth, inject: fn(&mut World<'_>) -> Result<()>) -> Self {
        let patience = Duration::from_secs(30);
        Self { name, truth, needs: &[], sessions: 1, own_stack: false, patience, inject }
    }

    fn needs(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    fn patience(self, seconds: u64) -> Self {
        Self { patience: Duration::from_secs(seconds), ..self }
    }

    fn own_stack(self) -> Self {
        Self { own_stack: true, ..self }
    }
}

/// The names of the eight that everything else builds on.
pub const FIRST_EIGHT: [&str; 8] = [
    "client_close",
    "client_fin",
    "client_rst",
    "serve_close",
    "serve_fin",
    "serve_rst",
    "serve_sigkill",
    "serve_refused",
];

/// Every fault, in the order of the table.
#[must_use]
pub fn catalogue() -> Vec<Fault> {
    [downstream::faults(), upstream::faults(), opening::faults(), dispatch::faults()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_first_eight_are_there() {
        let mut names: Vec<_> = catalogue().iter().map(|fault| fault.name).collect();
        for name in FIRST_EIGHT {
            assert!(names.contains(&name), "{name}");
        }
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn every_truth_says_something_about_every_key() {
        for fault in catalogue() {
            for key in t3_record::CloseRecord::KEYS {
                assert!(fault.truth.of(key.name).is_some(), "{} says nothing about {}", fault.name, key.name);
            }
        }
    }
}
