//! Time of the eBPF programs during a phase, as the kernel measures it.

use t3_trace_host::kernel::Kernel;

use super::stats::{Spread, spread};
use crate::error::Result;

/// Prefixes of the programs that run for sockets; the others run for all processes of the host.
const SOCKET_PROGRAMS: [&str; 5] = ["inet_", "tcp_", "btf_", "fentry_", "kprobe_"];
/// End of the name of the program of state changes.
const STATE: &str = "inet_sock_set_state";
pub(super) fn ns(values: impl Iterator<Item = f64>) -> String {
    spread(values).map_or_else(
        || "not measured".to_owned(),
        |Spread { median, min, max }| format!("{median:.0} ns ({min:.0} to {max:.0})"),
    )
}

/// Time of the programs in one phase.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Time {
    state_ns: f64,
    state_runs: f64,
    /// All programs that run for sockets.
    pub(super) all_ns: f64,
}

impl Time {
    #[expect(clippy::cast_precision_loss, reason = "a mean needs no more than f64")]
    fn now(kernel: &Kernel) -> Self {
        let mut time = Self::default();
        for program in kernel.program_times() {
            let ns = program.time.as_nanos() as f64;
            if SOCKET_PROGRAMS.iter().any(|prefix| program.program.starts_with(prefix)) {
                time.all_ns += ns;
            }
            if program.program.ends_with(STATE) {
                time.state_ns += ns;
                time.state_runs += program.runs as f64;
            }
        }
        time
    }

    pub(super) fn per_change(&self) -> Option<f64> {
        (self.state_runs > 0.0).then(|| self.state_ns / self.state_runs)
    }
}

/// Time of the programs while `work` runs.
pub(super) fn times<T>(kernel: &Kernel, work: impl FnOnce() -> Result<T>) -> Result<(Time, T)> {
    let before = Time::now(kernel);
    let done = work()?;
    let after = Time::now(kernel);
    let time = Time {
        state_ns: after.state_ns - before.state_ns,
        state_runs: after.state_runs - before.state_runs,
        all_ns: after.all_ns - before.all_ns,
    };
    Ok((time, done))
}
