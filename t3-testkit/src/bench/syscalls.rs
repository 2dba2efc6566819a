//! System calls of another process, by name.
//!
//! The kernel counts at `raw_syscalls:sys_enter`, for the threads that exist at the start and those
//! that they create. This needs root and tracefs and slows down each call, so it is not done while
//! CPU time is measured.

#![expect(unsafe_code, reason = "perf_event_open and its ioctl have no safe wrapper here")]

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use super::meter::threads;
use crate::error::{Attempt, Result};

/// System calls that are counted by name.
const NAMES: &[(&str, libc::c_long)] = &[
    ("read", libc::SYS_read),
    ("write", libc::SYS_write),
    ("readv", libc::SYS_readv),
    ("writev", libc::SYS_writev),
    ("recvfrom", libc::SYS_recvfrom),
    ("sendto", libc::SYS_sendto),
    ("recvmsg", libc::SYS_recvmsg),
    ("sendmsg", libc::SYS_sendmsg),
    ("epoll_pwait", libc::SYS_epoll_pwait),
    ("epoll_pwait2", libc::SYS_epoll_pwait2),
    ("epoll_ctl", libc::SYS_epoll_ctl),
    ("accept4", libc::SYS_accept4),
    ("socket", libc::SYS_socket),
    ("connect", libc::SYS_connect),
    ("close", libc::SYS_close),
    ("shutdown", libc::SYS_shutdown),
    ("setsockopt", libc::SYS_setsockopt),
    ("getsockopt", libc::SYS_getsockopt),
    ("getsockname", libc::SYS_getsockname),
    ("getpeername", libc::SYS_getpeername),
    ("ioctl", libc::SYS_ioctl),
    ("fcntl", libc::SYS_fcntl),
    ("futex", libc::SYS_futex),
    ("mmap", libc::SYS_mmap),
    ("munmap", libc::SYS_munmap),
    ("mremap", libc::SYS_mremap),
    ("brk", libc::SYS_brk),
    ("madvise", libc::SYS_madvise),
    ("mprotect", libc::SYS_mprotect),
    ("getrandom", libc::SYS_getrandom),
    ("clock_gettime", libc::SYS_clock_gettime),
    ("timerfd_settime", libc::SYS_timerfd_settime),
    ("splice", libc::SYS_splice),
    ("openat", libc::SYS_openat),
    ("prlimit64", libc::SYS_prlimit64),
    ("statx", libc::SYS_statx),
    ("ppoll", libc::SYS_ppoll),
    ("sched_yield", libc::SYS_sched_yield),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    #[cfg(target_arch = "x86_64")]
    ("epoll_wait", libc::SYS_epoll_wait),
    #[cfg(target_arch = "x86_64")]
    ("accept", libc::SYS_accept),
    #[cfg(target_arch = "x86_64")]
    ("open", libc::SYS_open),
    #[cfg(target_arch = "x86_64")]
    ("poll", libc::SYS_poll),
];

/// Number of system calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: u64,
    /// Only names that occur.
    pub by_name: BTreeMap<&'static str, u64>,
}

/// Counter of the system calls of a process's threads.
#[derive(Debug)]
pub struct Syscalls {
    /// `None` counts all.
    counters: Vec<(Option<&'static str>, File)>,
}

impl Syscalls {
    /// Starts counting.
    pub fn of(pid: u32) -> Result<Self> {
        Self::of_threads(&threads(pid)?)
    }

    fn of_threads(threads: &[u32]) -> Result<Self> {
        let path = "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id";
        let id = fs::read_to_string(path).attempt(|| format!("read {path}"))?;
        let id = id.trim().parse().map_err(io::Error::other).attempt(|| format!("read {path}"))?;
        let mut counters = Vec::new();
        for thread in threads {
            let what = || "count the system calls of a thread".to_owned();
            counters.push((None, tracepoint(id, *thread).attempt(what)?));
            for (name, number) in NAMES {
                let counter = tracepoint(id, *thread).attempt(what)?;
                filter(&counter, *number).attempt(what)?;
                counters.push((Some(*name), counter));
            }
        }
        for (_, counter) in &counters {
            enable(counter).attempt(|| "start a counter of system calls".to_owned())?;
        }
        Ok(Self { counters })
    }

    /// Number of system calls since the start.
    pub fn count(&mut self) -> Result<Counts> {
        let mut counts = Counts::default();
        for (name, counter) in &mut self.counters {
            let mut value = [0; 8];
            counter.read_exact(&mut value).attempt(|| "read a counter of system calls".to_owned())?;
            match (name, u64::from_ne_bytes(value)) {
                (None, value) => counts.total += value,
                (Some(_), 0) => {}
                (Some(name), value) => *counts.by_name.entry(*name).or_default() += value,
            }
        }
        Ok(counts)
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
    sampling: [u64; 3],
    flags: u64,
    unused: [u64; 2],
}

/// A counter that is not enabled.
fn tracepoint(id: u64, thread: u32) -> io::Result<File> {
    const TRACEPOINT: u32 = 2;
    const DISABLED: u64 = 1;
    const INHERIT: u64 = 1 << 1;
    const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
    let attributes = Attributes {
        kind: TRACEPOINT,
        size: 64,
        config: id,
        flags: DISABLED | INHERIT,
        ..Attributes::default()
    };
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

/// Counts only the system call with this number.
fn filter(counter: &File, number: libc::c_long) -> io::Result<()> {
    /// `PERF_EVENT_IOC_SET_FILTER`, `_IOW('$', 6, char *)`.
    const SET_FILTER: libc::Ioctl = 0x4008_2406;
    let text = CString::new(format!("id == {number}")).unwrap_or_default();
    // SAFETY: the kernel reads a string that lives until the call returns.
    match unsafe { libc::ioctl(counter.as_raw_fd(), SET_FILTER, text.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn enable(counter: &File) -> io::Result<()> {
    /// `PERF_EVENT_IOC_ENABLE`, `_IO('$', 0)`.
    const ENABLE: libc::Ioctl = 0x2400;
    // SAFETY: the argument is a number.
    match unsafe { libc::ioctl(counter.as_raw_fd(), ENABLE, 0) } {
        0 => Ok(()),
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
    fn each_system_call_has_one_name() {
        let numbers: std::collections::BTreeSet<_> = NAMES.iter().map(|(_, number)| number).collect();
        assert_eq!(numbers.len(), NAMES.len());
    }

    #[test]
    fn calls_of_this_thread_and_its_children_are_counted_by_name() {
        let mut calls =
            match Syscalls::of_threads(&[rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()]) {
                Ok(calls) => calls,
                Err(error) => {
                    let missing = crate::sys::is_root() && fs::metadata("/sys/kernel/tracing/events").is_ok();
                    assert!(!missing, "{error}");
                    eprintln!("no right to count: {error}");
                    return;
                }
            };
        let yields = || (0..100).for_each(|_| std::thread::yield_now());
        yields();
        std::thread::spawn(yields).join().unwrap();
        let counts = calls.count().unwrap();
        assert_eq!(counts.by_name.get("sched_yield"), Some(&200), "{counts:?}");
        assert!(counts.total >= counts.by_name.values().sum(), "{counts:?}");
    }
}
