//! What the process itself uses, from procfs. A value that cannot be read is left as it was.

use std::fs;

use prometheus::IntGauge;
use rustix::process::{Resource, getrlimit};

use super::families::Maker;

/// What the process uses.
#[derive(Debug)]
pub struct Process {
    open_fds: IntGauge,
    max_fds: IntGauge,
    resident: IntGauge,
}

impl Process {
    /// Its metrics.
    pub fn new(make: &Maker) -> Self {
        Self {
            open_fds: make.gauge("process_open_fds", "Open descriptors; a WebSocket takes two."),
            max_fds: make.gauge("process_max_fds", "Most descriptors that may be open."),
            resident: make.gauge("process_resident_memory_bytes", "Memory of the process that is in RAM."),
        }
    }

    /// Reads anew. Takes milliseconds when there are many descriptors: not for the event loop.
    pub fn read(&self) {
        if let Some(open) = open_fds() {
            self.open_fds.set(open);
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            self.max_fds.set(i64::try_from(most).unwrap_or(i64::MAX));
        }
        if let Some(resident) = resident() {
            self.resident.set(resident);
        }
    }
}

fn open_fds() -> Option<i64> {
    // The one that lists them is among them.
    i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count().checked_sub(1)?).ok()
}

/// Second field of `/proc/self/statm`, in pages (proc(5)).
fn resident() -> Option<i64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(i64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_descriptor_and_more_memory_are_seen() {
        let process = Process::new(&Maker::default());
        process.read();
        let resident = process.resident.get();
        assert!(process.open_fds.get() >= 3 && process.max_fds.get() > process.open_fds.get());
        let held = vec![1_u8; 64 << 20];
        // Other tests of this process open and close some at the same time.
        let files: Vec<_> = (0..200).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        process.read();
        assert!(process.open_fds.get() >= 200, "{}", process.open_fds.get());
        assert!(process.resident.get() - resident > 32 << 20, "{} {resident}", process.resident.get());
        drop((held, files));
    }
}
