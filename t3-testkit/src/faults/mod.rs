//! The fault catalogue: each fault ends a session with real processes and sockets and has its
//! expected record.
//!
//! One table for every tier: a fault that is not possible on a host is reported with the reason,
//! never skipped silently.

mod backlog;
mod compressed;
mod dispatch;
mod dispatch_overload;
mod downstream;
mod edge_burst;
mod expected_record;
mod explain_check;
mod fixture;
mod forwarder;
mod host_pause;
pub mod incident_demo;
mod incidents;
mod journald;
mod liveness;
mod many_sessions;
mod opening;
mod own_network;
mod packet_loss;
mod pressure;
mod process_state;
mod proxy;
pub mod records;
mod report;
mod restart;
mod runner;
mod simultaneous;
mod slow_death;
mod starvation;
mod time_namespace;
mod unreachable;
mod upstream;
mod watchdogs;
mod zero_window;

pub use expected_record::{Expect, ExpectedRecord, Mismatch};
pub use fixture::{Fixture, PERIOD};
pub use incidents::{INCIDENTS, Incident};
pub use report::{Outcome, Row, print};
pub use runner::{Options, run};

use std::time::Duration;

use t3_record::{KernelSource, Verdict};

use crate::error::{Result, TestError};

/// Requirement of a fault on the host, in addition to serve and dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Root,
    /// t3-trace with its eBPF programs loaded: the verdict rests on kernel evidence.
    Kernel,
    /// A network namespace and iproute2.
    Netns,
    /// A memory limit on a cgroup.
    MemoryLimit,
    /// Memory limits and counters on cgroup v2.
    MemoryV2,
    CgroupV2,
    /// serve as a systemd unit, with the controllers of cgroup v2.
    Systemd,
    /// netem or nftables, to drop packets.
    Loss,
    /// nftables, with `reject`.
    Firewall,
    /// `systemd-socket-proxyd`.
    Forwarder,
    /// `unshare --time` whose namespace exec joins (Linux 6.12 does, 6.1 does not).
    TimeNamespace,
    /// `ss -K` (`CONFIG_INET_DIAG_DESTROY`).
    SockDestroy,
    /// Traefik, installed by pip below the target folder.
    Traefik,
    /// A private journald, to stop and to kill.
    OwnJournal,
    /// CPUs without emulation: times are measured to milliseconds.
    RealCpus,
    /// serve as a child process: systemd ends the other processes of a unit with it.
    ServeChild,
    /// Core dumps into the current folder.
    CoreDump,
    /// A browser outside this machine, and a hypervisor that pauses it.
    Outside,
}

/// One injected failure with its expected record.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Unique name, for `--only`.
    pub name: &'static str,
    pub expected: ExpectedRecord,
    pub needs: &'static [Need],
    /// Number of sessions that it opens; each has one record.
    pub sessions: usize,
    /// Number of users; each has its own serve.
    pub users: usize,
    /// Expected record of sessions that the fault does not affect ([`Fixture::set_unaffected`]).
    pub unaffected: Option<ExpectedRecord>,
    /// Further checks after the records have been read.
    pub after: fn(&mut Fixture<'_>) -> Result<()>,
    /// Runs in a separate stack, because it stops dispatch or t3-trace.
    pub own_stack: bool,
    /// Further arguments of dispatch; only for a fault with a separate stack.
    pub dispatch: &'static [&'static str],
    /// Program with arguments that starts dispatch; only for a fault with a separate stack.
    pub prefix: &'static [&'static str],
    /// Maximum number of stored descriptors of dispatch, which then survives its own restart
    /// ([`crate::keeper`]); only for a fault with a separate stack.
    pub stored: Option<usize>,
    /// Runs without t3-trace; only for a fault with a separate stack.
    pub is_untraced: bool,
    /// Sessions are compressed.
    pub is_compressed: bool,
    /// Runs without other faults at the same time, because it loads the whole host.
    pub alone: bool,
    /// Runs in this lane, because it waits long (see `runner`).
    pub lane: Option<u8>,
    /// Timeout for the record; kernel timers are slow.
    pub timeout: Duration,
    /// Injects the fault.
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
            unaffected: None,
            after: |_| Ok(()),
            own_stack: false,
            dispatch: &[],
            prefix: &[],
            stored: None,
            is_untraced: false,
            is_compressed: false,
            alone: false,
            lane: None,
            timeout,
            inject,
        }
    }

    fn many(self, sessions: usize, users: usize) -> Self {
        Self { sessions, users, ..self }
    }

    fn unaffected(self, expected: ExpectedRecord) -> Self {
        Self { unaffected: Some(expected), ..self }
    }

    fn after(self, after: fn(&mut Fixture<'_>) -> Result<()>) -> Self {
        Self { after, ..self }
    }

    /// The first user in this attempt (from 0); further users have this name and a number.
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

    fn lane(self, lane: u8) -> Self {
        Self { lane: Some(lane), ..self }
    }

    fn own_stack(self) -> Self {
        Self { own_stack: true, ..self }
    }

    fn prefix(self, prefix: &'static [&'static str]) -> Self {
        Self { own_stack: true, prefix, ..self }
    }

    fn stored(self, max: usize) -> Self {
        Self { own_stack: true, stored: Some(max), ..self }
    }

    fn dispatch(self, arguments: &'static [&'static str]) -> Self {
        Self { own_stack: true, dispatch: arguments, ..self }
    }
}

/// Verdicts about the end of serve's process.
const PROCESS_ENDS: [&str; 3] = ["serve_exited", "serve_killed", "serve_oom"];

impl Fault {
    /// Whether serve's process ends, which only kernel evidence shows.
    fn ends_serve(&self) -> bool {
        matches!(self.expected.of("verdict"), Some(Expect::Is(verdict)) if PROCESS_ENDS.contains(&verdict.as_str()))
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
        if self.ends_serve() && matches!(kernel, KernelSource::Off | KernelSource::Timeout) {
            verdicts.push(Verdict::ServeLeft);
        }
        verdicts
    }
}

/// The basic faults: Close frame, FIN and RST of each end, killed serve, no serve.
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

/// Faults whose verdict rests on data that dispatch itself has read (frames, heartbeats, HTTP
/// responses), or on kernel behaviour that another fault covers: testing one kernel is enough.
pub const DISPATCH_DECIDES: [&str; 60] = [
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
    "dispatch_stopped_in_pieces",
    "dispatch_stopped_before",
    "restart_mid_frame",
    "restart_mid_frame_without",
    "store_full",
    "store_fits",
    "state_copied",
    "restart_outlasts_client",
    "restart_outlasts_client_untraced",
    "restart_is_tolerated",
    "serve_mute_over_restart",
    "serve_recovers_after_restart",
    "serve_recovers_after_crash",
    "ping_frames_unanswered",
    "ping_frames_answered",
    "serve_pings_unanswered",
    "serve_pings_answered",
    "stream_without_pongs_1001",
    "stream_without_pongs_1000",
    "no_heartbeat_1000",
    "no_heartbeat_1001",
    "slow_line",
    "slow_line_recovers",
    "serve_sigkill_inherited_left",
    "firewall_drops",
    "firewall_rejects",
    "serve_elsewhere",
    "accept_queue_full",
    "client_gives_up_at_open",
    "client_impatient_at_open",
    "client_quick_at_open",
    "host_paused_1001",
    "host_paused_briefly",
    "host_paused_before",
];

/// All faults, in the order of the table.
#[must_use]
pub fn catalogue() -> Vec<Fault> {
    let plain = [
        downstream::faults(),
        packet_loss::faults(),
        zero_window::faults(),
        backlog::faults(),
        edge_burst::faults(),
        proxy::faults(),
        upstream::faults(),
        slow_death::faults(),
        forwarder::faults(),
        liveness::faults(),
        watchdogs::faults(),
        compressed::faults(),
        process_state::faults(),
        own_network::faults(),
        pressure::faults(),
        simultaneous::faults(),
        opening::faults(),
        unreachable::faults(),
        time_namespace::faults(),
        incidents::faults(),
        dispatch::faults(),
        dispatch_overload::faults(),
        restart::faults(),
        host_pause::faults(),
        journald::faults(),
    ]
    .concat();
    let twins = compressed::twins(&plain);
    [plain, twins].concat()
}

/// Returns the fault with this name.
pub fn fault(name: &str) -> Result<Fault> {
    catalogue().into_iter().find(|fault| fault.name == name).ok_or_else(|| TestError::Unexpected {
        what: "a fault name (see `t3-faults --list`)".to_owned(),
        got: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_first_eight_exist() {
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
    fn every_twin_has_its_fault() {
        let names: Vec<_> = catalogue().iter().map(|fault| fault.name).collect();
        for (twin, of) in compressed::TWINS {
            assert!(names.contains(&twin) && names.contains(&of), "{twin} of {of}");
        }
    }

    #[test]
    fn every_expected_record_covers_every_key() {
        for fault in catalogue() {
            let expectations = std::iter::once(&fault.expected).chain(&fault.unaffected);
            for (expected, key) in expectations
                .flat_map(|expected| t3_record::CloseRecord::KEYS.iter().map(move |key| (expected, key)))
            {
                assert!(expected.of(key.name).is_some(), "{} has no expectation on {}", fault.name, key.name);
            }
        }
    }
}
