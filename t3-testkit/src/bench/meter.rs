//! Cost of another process: CPU time in nanoseconds, memory, system calls.
//!
//! - CPU time is the process's CPU clock (`clock_getcpuclockid(3)`): user and system time of all
//!   threads, including exited ones. `/proc/PID/stat` has it only in units of 10 ms.
//! - Memory is `smaps_rollup`: pages of the process, without the kernel memory of its sockets.
//! - System calls are counted by the kernel at `raw_syscalls:sys_enter`, for the threads that exist
//!   at the start. That needs root and tracefs and slows down each call, so it is not done while
//!   CPU time is measured.

#![expect(unsafe_code, reason = "clock_getcpuclockid and perf_event_open have no safe wrapper here")]

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{FromRawFd as _, OwnedFd},
    time::Duration,
};

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

/// Counter of the system calls of a process's threads.
#[derive(Debug)]
pub struct Syscalls {
    counters: Vec<File>,
}

impl Syscalls {
    /// Starts counting.
    pub fn of(pid: u32) -> Result<Self> {
        let path = "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id";
        let id = fs::read_to_string(path).attempt(|| format!("read {path}"))?;
        let id = id.trim().parse().map_err(io::Error::other).attempt(|| format!("read {path}"))?;
        let counter =
            |thread| tracepoint(id, thread).attempt(|| format!("count system calls of thread {thread}"));
        Ok(Self { counters: threads(pid)?.into_iter().map(counter).collect::<Result<_>>()? })
    }

    /// Number of system calls since the start.
    pub fn count(&mut self) -> Result<u64> {
        let mut sum = 0;
        for counter in &mut self.counters {
            let mut value = [0; 8];
            counter.read_exact(&mut value).attempt(|| "read a counter of system calls".to_owned())?;
            sum += u64::from_ne_bytes(value);
        }
        Ok(sum)
    }
}

/// `struct perf_event_attr` in its first published size (`PERF_ATTR_SIZE_VER0` of
/// include/uapi/linux/perf_event.h).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    unused: [u64; 6],
}

fn tracepoint(id: u64, thread: u32) -> io::Result<File> {
    const TRACEPOINT: u32 = 2;
    const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
    let attributes = Attributes { kind: TRACEPOINT, size: 64, config: id, ..Attributes::default() };
    let (any_cpu, no_group) = (-1_i64, -1_i64);
    // SAFETY: the kernel reads `size` bytes of a struct that is as large; the other arguments are
    // numbers.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            i64::from(thread),
            any_cpu,
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just created this descriptor, and it has no other owner.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_the_size_in_their_field() {
        assert_eq!(size_of::<Attributes>(), 64);
    }

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
