//! Resource use of this process, from procfs. A value that cannot be read keeps its last state.

use prometheus::IntGauge;
use rustix::process::{Resource, getrlimit};

use super::families::MetricBuilder;

/// Resource use of this process.
#[derive(Debug)]
pub struct Process {
    open_fds: IntGauge,
    max_fds: IntGauge,
    resident: IntGauge,
}

impl Process {
    /// Registers the metrics.
    pub fn new(builder: &MetricBuilder) -> Self {
        Self {
            open_fds: builder.gauge("process_open_fds", "Open file descriptors; a WebSocket uses two."),
            max_fds: builder.gauge("process_max_fds", "Maximum number of open file descriptors."),
            resident: builder
                .gauge("process_resident_memory_bytes", "Resident memory of the process, in bytes."),
        }
    }

    /// Updates the values. Linux before 6.2 counts descriptors one by one, which takes milliseconds
    /// for thousands; so this must not run on the event loop.
    pub fn read(&self) {
        if let Some(most) = getrlimit(Resource::Nofile).current {
            self.max_fds.set(i64::try_from(most).unwrap_or(i64::MAX));
        }
        let Ok(process) = procfs::process::Process::myself() else { return };
        if let Ok(open) = process.fd_count() {
            // `process` holds one of them.
            self.open_fds.set(i64::try_from(open.saturating_sub(1)).unwrap_or(i64::MAX));
        }
        if let Ok(memory) = process.statm() {
            self.resident
                .set(i64::try_from(memory.resident.saturating_mul(procfs::page_size())).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_descriptors_and_memory_are_reported() {
        let process = Process::new(&MetricBuilder::default());
        process.read();
        let resident = process.resident.get();
        assert!(process.open_fds.get() >= 3 && process.max_fds.get() > process.open_fds.get());
        let held = vec![1_u8; 64 << 20];
        // Other tests of this process open and close descriptors at the same time.
        let files: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        process.read();
        assert!(process.open_fds.get() >= 200, "{}", process.open_fds.get());
        assert!(process.resident.get() - resident > 32 << 20, "{} {resident}", process.resident.get());
        drop((held, files));
    }
}
