//! Identity of a dispatch process that outlives it, and whether it still runs.

use serde::{Deserialize, Serialize};
use t3_record::{evidence::Nanos, reconcile::Moment};
use t3_trace_host::{clock, proc::stat};

use super::boot_moment::BootMoment;

/// Two clock ticks at 100 Hz: starts are rounded down to a tick.
const TICKS_NS: Nanos = 20_000_000;
/// Inode of the first pid namespace (include/linux/proc_ns.h, `PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// A dispatch process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DispatchId {
    /// Boot in which it ran.
    pub(crate) boot: String,
    /// Its pid, if it is known.
    pub(crate) pid: Option<u32>,
    /// A time at which it ran: nanoseconds of `CLOCK_MONOTONIC` of that boot.
    pub(crate) ran_at: Nanos,
}

impl DispatchId {
    /// Whether the process has ended. A process with its pid that started later is another one.
    /// `None` if it cannot be known. `started` returns the start of a running process
    /// ([`Host::started`]).
    pub(crate) fn is_gone(&self, host: &Host, started: impl FnOnce(u32) -> Option<Nanos>) -> Option<bool> {
        if self.boot != host.boot {
            return Some(true);
        }
        let pid = self.pid.filter(|_| host.sees_all_pids)?;
        Some(started(pid).is_none_or(|started| started > self.ran_at.saturating_add(TICKS_NS)))
    }
}

/// This host, as far as it decides whether a process has ended.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// Id of this boot, as journald writes it.
    pub(crate) boot: String,
    /// The pids in the journal are those that t3-trace sees.
    sees_all_pids: bool,
}

impl Host {
    /// This host. In a pid namespace of its own t3-trace does not see the processes that journald
    /// names.
    pub(crate) fn this() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            boot: boot.trim().replace('-', ""),
            sees_all_pids: namespace.as_os_str() == FIRST_PID_NAMESPACE,
        }
    }

    #[cfg(test)]
    pub(super) fn in_boot(boot: &str) -> Self {
        Self { boot: boot.to_owned(), sees_all_pids: true }
    }

    /// Start of a running process in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) fn started(pid: u32) -> Option<Nanos> {
        let stat = stat::read(pid).filter(|stat| !stat.is_over())?;
        Some(clock::from_boottime(stat.started_boot_ns()))
    }

    /// Now.
    pub(crate) fn now(&self) -> BootMoment {
        let at = Moment { wall_us: clock::realtime_us(), monotonic: clock::monotonic() };
        BootMoment { boot: self.boot.clone(), at }
    }

    /// A dispatch of this boot that runs now.
    pub(crate) fn dispatch(&self, pid: Option<u32>) -> DispatchId {
        DispatchId { boot: self.boot.clone(), pid, ran_at: clock::monotonic() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn a_process_has_ended_when_its_pid_is_free_or_belongs_to_a_later_process() {
        let host = |sees_all_pids| Host { boot: "b1".into(), sees_all_pids };
        let id = |boot: &str, pid| DispatchId { boot: boot.into(), pid, ran_at: 10 * SECOND };
        for (id, started, gone) in [
            (id("b0", Some(7)), Some(9 * SECOND), Some(true)),
            (id("b1", Some(7)), None, Some(true)),
            (id("b1", Some(7)), Some(9 * SECOND), Some(false)),
            (id("b1", Some(7)), Some(10 * SECOND + TICKS_NS), Some(false)),
            (id("b1", Some(7)), Some(11 * SECOND), Some(true)),
            (id("b1", None), Some(9 * SECOND), None),
        ] {
            assert_eq!(id.is_gone(&host(true), |_| started), gone, "{id:?} {started:?}");
        }
        assert_eq!(id("b1", Some(7)).is_gone(&host(false), |_| None), None);
        assert_eq!(id("b0", Some(7)).is_gone(&host(false), |_| None), Some(true));
    }

    #[test]
    fn this_process_runs_and_an_ended_one_does_not() {
        let host = Host::this();
        assert_eq!(host.boot.len(), 32, "{host:?}");
        let own = host.dispatch(Some(std::process::id()));
        assert_ne!(own.is_gone(&host, Host::started), Some(true));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(Host::started(child.id()), None);
    }
}
