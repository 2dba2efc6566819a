//! Cost of another process: CPU time in nanoseconds, memory.
//!
//! - CPU time is the process's CPU clock (`clock_getcpuclockid(3)`): user and system time of all
//!   threads, including exited ones. `/proc/PID/stat` has it only in units of 10 ms.
//! - Memory is `smaps_rollup`: pages of the process, without the kernel memory of its sockets.

#![expect(unsafe_code, reason = "clock_getcpuclockid has no safe wrapper here")]

use std::{fs, io, time::Duration};

use serde::{Deserialize, Serialize};

use crate::error::{Attempt, Result, TestError};

/// CPU time of a process since its start.
pub fn cpu(pid: u32) -> Result<Duration> {
    let what = || format!("read the CPU clock of process {pid}");
    let id =
        libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput)).attempt(what)?;
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both pointers are to variables of this frame.
    let failed = unsafe { libc::clock_getcpuclockid(id, &mut clock) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed)).attempt(what);
    }
    // SAFETY: as above.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error()).attempt(what);
    }
    Ok(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// Memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident pages.
    pub rss_kib: u64,
    /// Resident pages; a shared page counts in proportion.
    pub pss_kib: u64,
}

pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).attempt(|| format!("read {path}"))?;
    parse_memory(&text)
        .ok_or_else(|| TestError::Unexpected { what: format!("Rss and Pss in {path}"), got: text })
}

fn parse_memory(text: &str) -> Option<Memory> {
    let kib = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    Some(Memory { rss_kib: kib("Rss")?, pss_kib: kib("Pss")? })
}

/// Ids of the threads of a process.
pub fn threads(pid: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&path).attempt(|| format!("read {path}"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_increases_with_work() {
        let begin = cpu(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while cpu(std::process::id()).unwrap() - begin < Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
        assert!(cpu(u32::MAX).is_err());
    }

    #[test]
    fn memory_is_read_from_the_rollup() {
        let text = "55fb-7ffd ---p 00000000 00:00 0   [rollup]\nRss:    1788 kB\nPss:     219 kB\nPss_Dirty:  116 kB\n";
        assert_eq!(parse_memory(text), Some(Memory { rss_kib: 1788, pss_kib: 219 }));
        assert_eq!(parse_memory("Rss: 1 kB\n"), None);
        assert!(memory(std::process::id()).unwrap().rss_kib > 0);
    }
}
