//! CPUs of the benchmark: one for the proxy, another for client and backend.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::error::{Attempt, Result, TestError};

/// Numbers of the CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpus {
    pub proxy: usize,
    /// Of client, backend and this process.
    pub load: usize,
}

impl Cpus {
    /// The CPUs that were selected, else the last one for the proxy and the first one for the load.
    ///
    /// # Errors
    /// This process may not run on a selected CPU.
    pub fn choose(proxy: Option<usize>, load: Option<usize>) -> Result<Self> {
        let set = sched_getaffinity(None).attempt(|| "read the CPUs of this process".to_owned())?;
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
        choose(&allowed, proxy, load).map_err(|cpu| TestError::Unexpected {
            what: format!("a CPU of {allowed:?}"),
            got: cpu.to_string(),
        })
    }

    /// Whether proxy and load compete for one CPU.
    #[must_use]
    pub const fn are_shared(&self) -> bool {
        self.proxy == self.load
    }

    /// Pins this thread, and all threads and processes that it starts, to the CPU of the load.
    pub fn pin_load(&self) -> Result<()> {
        sched_setaffinity(None, &only(self.load)).attempt(|| format!("run on CPU {}", self.load))
    }

    /// The CPU of the proxy, for [`crate::sys::pinned`].
    #[must_use]
    pub fn of_proxy(&self) -> CpuSet {
        only(self.proxy)
    }
}

fn only(cpu: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu);
    set
}

/// `Err` has the CPU that is not allowed.
fn choose(allowed: &[usize], proxy: Option<usize>, load: Option<usize>) -> Result<Cpus, usize> {
    for cpu in [proxy, load].into_iter().flatten() {
        if !allowed.contains(&cpu) {
            return Err(cpu);
        }
    }
    let proxy = proxy
        .or_else(|| allowed.iter().rev().find(|cpu| Some(**cpu) != load).copied())
        .or(load)
        .unwrap_or_default();
    let load = load.or_else(|| allowed.iter().find(|cpu| **cpu != proxy).copied()).unwrap_or(proxy);
    Ok(Cpus { proxy, load })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_and_load_get_different_cpus_if_there_are_two() {
        type Case = (&'static [usize], Option<usize>, Option<usize>, Result<(usize, usize), usize>);
        let table: [Case; 8] = [
            (&[0, 1], None, None, Ok((1, 0))),
            (&[2, 3, 6, 7], None, None, Ok((7, 2))),
            (&[0, 1], Some(0), None, Ok((0, 1))),
            (&[0, 1], None, Some(1), Ok((0, 1))),
            (&[0, 1, 2], Some(0), Some(2), Ok((0, 2))),
            (&[0, 1], Some(1), Some(1), Ok((1, 1))),
            (&[5], None, None, Ok((5, 5))),
            (&[0, 1], Some(4), None, Err(4)),
        ];
        for (allowed, proxy, load, expected) in table {
            let expected = expected.map(|(proxy, load)| Cpus { proxy, load });
            assert_eq!(choose(allowed, proxy, load), expected, "{allowed:?} {proxy:?} {load:?}");
        }
    }
}
