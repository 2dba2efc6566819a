//! Orders for the whole process: exit, signals, memory, blocking of the event loop.

use std::{
    fs::OpenOptions,
    hint::black_box,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    process::{Resource, Rlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

use super::Order;
use crate::sys;

/// Size of a read of [`thrash`]; most of its time is waiting.
const READ: usize = 1 << 20;

/// Address space of [`dump`] in bytes: half a billion pages, of which one exists.
const SPARSE: usize = 2 << 40;

/// Marks a process that only takes memory; see [`eat_if_asked`].
const HOG: &str = "T3_FAKE_SERVE_HOG";

/// Executes an order for the process.
pub(super) fn at_process(order: &Order) -> io::Result<()> {
    match order {
        Order::Exit(status) => std::process::exit(*status),
        Order::Signal(signal) => sys::die_of(*signal),
        Order::Dump => dump()?,
        Order::Busy(time) => {
            let end = Instant::now() + *time;
            while Instant::now() < end {
                std::hint::spin_loop();
            }
        }
        Order::Thrash(time) => thrash(Instant::now() + *time)?,
        Order::Burn(time) => {
            let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
            let end = used() + *time;
            while used() < end {
                std::hint::spin_loop();
            }
        }
        // Never freed, as a grown heap.
        Order::Grow(bytes) => std::mem::forget(taken(*bytes)),
        Order::Alloc(bytes) => {
            // In a thread: the event loop continues.
            let bytes = *bytes;
            std::thread::spawn(move || eat(bytes));
        }
        Order::Hog(bytes) => {
            let mut hog = Command::new(std::env::current_exe()?);
            hog.env(HOG, bytes.to_string()).stdin(Stdio::null()).args(["--port", "0"]);
            sys::dies_with_us(&mut hog);
            let mut hog = hog.spawn()?;
            std::thread::spawn(move || hog.wait());
        }
        _ => {}
    }
    Ok(())
}

/// Dies of SIGABRT with a core dump of [`SPARSE`] bytes; the kernel visits every page, and writes
/// the few that exist.
fn dump() -> io::Result<()> {
    let unlimited = Rlimit { current: None, maximum: None };
    setrlimit(Resource::Core, unlimited)?;
    sys::map_sparse(SPARSE)?;
    sys::die_of(libc::SIGABRT);
}

/// Reads the program file from disk repeatedly, without the page cache, like page faults under
/// memory pressure.
fn thrash(end: Instant) -> io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(std::env::current_exe()?)?;
    let pieces = (file.metadata()?.len() / READ as u64).max(1);
    // Direct IO requires aligned blocks; 4096 fits all block sizes in use.
    let mut memory = vec![0; READ + 4096];
    let skip = memory.as_ptr().align_offset(4096);
    let buffer = memory.get_mut(skip..skip + READ).ok_or(io::ErrorKind::InvalidInput)?;
    let mut piece = 0;
    while Instant::now() < end {
        file.read_at(buffer, piece % pieces * READ as u64)?;
        piece += 7;
    }
    Ok(())
}

/// Runs a memory hog; returns immediately in any other process.
pub fn eat_if_asked() {
    if let Some(bytes) = std::env::var(HOG).ok().and_then(|bytes| bytes.parse().ok()) {
        // The OOM killer must prefer this process to serve.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        eat(bytes);
    }
}

/// Allocates memory and touches every page.
fn taken(bytes: usize) -> Vec<Vec<u8>> {
    const CHUNK: usize = 4 << 20;
    let mut taken = Vec::new();
    while taken.len() * CHUNK < bytes {
        taken.push(vec![1_u8; CHUNK]);
        black_box(&taken);
    }
    taken
}

/// Allocates memory and keeps it.
fn eat(bytes: usize) {
    let taken = taken(bytes);
    loop {
        std::thread::park();
        black_box(&taken);
    }
}
