//! The catalogue of faults: each injects one way to die with real processes and sockets and states
//! the truth about it.
//!
//! One table for every tier: a fault that the machine cannot have says why, it is never passed over
//! in silence.

mod dispatch;
mod dispatch_overload;
mod downstream;
mod edge_burst;
mod expected_record;
mod explain_check;
mod fixture;
pub mod incident_demo;
mod incidents;
mod journald;
mod many_sessions;
mod opening;
mod packet_loss;
mod pressure;
mod proxy;
pub mod records;
mod report;
mod runner;
mod simultaneous;
mod upstream;
mod zero_window;

pub use expected_record::{Expect, ExpectedRecord, Mismatch};
pub use fixture::{Fixture, PERIOD};
pub use incidents::{INCIDENTS, Incident};
pub use report::{Outcome, Row, print};
pub use runner::{Options, run};

use std::time::Duration;

use t3_record::{KernelSource, Verdict};

use crate::error::{Result, TestError};

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
    /// serve as a unit of systemd, with the controllers of cgroup v2.
    Systemd,
    /// netem or nftables, to lose packets.
    Loss,
    /// `ss -K` (`CONFIG_INET_DIAG_DESTROY`).
    SockDestroy,
    /// Traefik, installed by pip below the target folder.
    Traefik,
    /// A journald of the test's own, to stop and to kill.
    OwnJournal,
}

/// One way to die.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Its name, unique, as `--only` takes it.
    pub name: &'static str,
    /// The truth about its record.
    pub expected: ExpectedRecord,
    /// What it asks of the machine.
    pub needs: &'static [Need],
    /// Sessions it opens, each with a record of its own.
    pub sessions: usize,
    /// Users it needs, each with a serve of its own.
    pub users: usize,
    /// The truth about sessions that the fault does not hit (`Fixture::aside`); that of the others
    /// when `None`.
    pub aside: Option<ExpectedRecord>,
    /// What else must hold once the records are there.
    pub after: fn(&mut Fixture<'_>) -> Result<()>,
    /// It ends dispatch or t3-trace, so it gets a stack to itself.
    pub own_stack: bool,
    /// What dispatch is started with besides; only for a fault with a stack to itself.
    pub dispatch: &'static [&'static str],
    /// It weighs on the whole machine, so nothing else runs beside it.
    pub alone: bool,
    /// How long the record may take: timers of the kernel take their time.
    pub timeout: Duration,
    /// Injects it.
    pub inject: fn(&mut Fixture<'_>) -> Result<()>,
}

impl Fault {
    fn new(name: &'static str, expected: ExpectedRecord, inject: fn(&mut Fixture<'_>) -> Result<()>) -> Self {
        let timeout = Duration::from_secs(30);
        Self {
            name,
            expected,
            needs: &[],
            sessions: 1,
            users: 1,
            aside: None,
            after: |_| Ok(()),
            own_stack: false,
            dispatch: &[],
            alone: false,
            timeout,
            inject,
        }
    }

    fn crowd(self, sessions: usize, users: usize) -> Self {
        Self { sessions, users, ..self }
    }

    fn aside(self, expected: ExpectedRecord) -> Self {
        Self { aside: Some(expected), ..self }
    }

    fn after(self, after: fn(&mut Fixture<'_>) -> Result<()>) -> Self {
        Self { after, ..self }
    }

    /// Its first user at this attempt, counted from 0; the others have a number behind that name.
    #[must_use]
    pub fn first_user(&self, attempt: usize) -> String {
        if attempt == 0 { self.name.to_owned() } else { format!("{}.{attempt}", self.name) }
    }

    fn needs(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    fn timeout(self, seconds: u64) -> Self {
        Self { timeout: Duration::from_secs(seconds), ..self }
    }

    fn alone(self) -> Self {
        Self { own_stack: true, alone: true, ..self }
    }

    fn own_stack(self) -> Self {
        Self { own_stack: true, ..self }
    }

    fn dispatch(self, arguments: &'static [&'static str]) -> Self {
        Self { own_stack: true, dispatch: arguments, ..self }
    }
}

/// Verdicts about the death of serve's process.
const DEATHS: [&str; 3] = ["serve_exited", "serve_killed", "serve_oom"];

impl Fault {
    /// Whether serve's process dies, which only the kernel can tell.
    fn expects_death(&self) -> bool {
        matches!(self.expected.of("verdict"), Some(Expect::Is(verdict)) if DEATHS.contains(&verdict.as_str()))
    }

    /// The correct verdicts. Without eBPF programs the end of a process is visible only where the
    /// kernel gives the exit status of other users' processes (pidfd, Linux 6.15 and newer);
    /// elsewhere only its FIN is.
    #[must_use]
    pub fn verdicts(&self, kernel: KernelSource) -> Vec<Verdict> {
        let values = match self.expected.of("verdict") {
            Some(Expect::Is(value)) => std::slice::from_ref(value),
            Some(Expect::OneOf(values)) => values,
            _ => &[],
        };
        let mut verdicts: Vec<_> = values.iter().filter_map(|value| value.parse().ok()).collect();
        if self.expects_death() && matches!(kernel, KernelSource::Off | KernelSource::Timeout) {
            verdicts.push(Verdict::ServeLeft);
        }
        verdicts
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

/// Faults whose verdict rests on what dispatch itself has read (frames, heartbeats, HTTP answers),
/// or on a kernel's doing that another fault asks for as well: one kernel does for them.
pub const DISPATCH_DECIDES: [&str; 26] = [
    "client_close_1001",
    "client_close_app",
    "client_close_empty",
    "client_mid_frame",
    "client_unmasked",
    "client_vanished_idle",
    "client_watchdog_path",
    "zero_window_reset",
    "zero_window_quiet",
    "zero_window_watchdog",
    "tabs_closed",
    "four_left",
    "serve_close_1000",
    "serve_close_1012",
    "serve_mid_frame",
    "serve_reserved_opcode",
    "serve_mute",
    "serve_busy",
    "serve_silent",
    "serve_401",
    "serve_403",
    "serve_502",
    "serve_garbage",
    "serve_wrong_accept",
    "new_version_rejects",
    "dispatch_stalled",
];

/// Every fault, in the order of the table.
#[must_use]
pub fn catalogue() -> Vec<Fault> {
    [
        downstream::faults(),
        packet_loss::faults(),
        zero_window::faults(),
        edge_burst::faults(),
        proxy::faults(),
        upstream::faults(),
        pressure::faults(),
        simultaneous::faults(),
        opening::faults(),
        incidents::faults(),
        dispatch::faults(),
        dispatch_overload::faults(),
        journald::faults(),
    ]
    .concat()
}

/// The fault of this name.
pub fn fault(name: &str) -> Result<Fault> {
    catalogue().into_iter().find(|fault| fault.name == name).ok_or_else(|| TestError::Unexpected {
        what: "the name of a fault (`t3-faults --list` has them)".to_owned(),
        got: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_first_eight_are_there() {
        let mut names: Vec<_> = catalogue().iter().map(|fault| fault.name).collect();
        for name in FIRST_EIGHT.iter().chain(&DISPATCH_DECIDES) {
            assert!(names.contains(name), "{name}");
        }
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn every_truth_says_something_about_every_key() {
        for fault in catalogue() {
            let expectations = std::iter::once(&fault.expected).chain(&fault.aside);
            for (expected, key) in expectations
                .flat_map(|expected| t3_record::CloseRecord::KEYS.iter().map(move |key| (expected, key)))
            {
                assert!(expected.of(key.name).is_some(), "{} says nothing about {}", fault.name, key.name);
            }
        }
    }
}
