//! Metrics of the daemon as a file for the textfile collector of the Prometheus node exporter.
//!
//! A file, not a port: the privileged process has no network and parses no request. docs/METRICS.md
//! lists the metrics.

mod closes;
mod page;

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use t3_record::vocabulary::KernelSource;
use t3_trace_host::clock::realtime_secs;
use tokio::time::MissedTickBehavior;

use crate::{locked::lock, state::Shared};
pub(crate) use closes::Closes;
use page::Snapshot;
pub use page::{FAMILIES, Family};

/// Interval of writes.
pub const EVERY: Duration = Duration::from_secs(15);
/// The directory decides who may read it; the values name no user and no address.
const MODE: u32 = 0o644;

/// Writes the file until the daemon stops, and then removes it: its values would stay indefinitely.
pub(crate) struct MetricsFile(Arc<Target>);

struct Target {
    path: PathBuf,
    /// Held while the file is written; a thread may write it later than the daemon stops.
    has_ended: Mutex<bool>,
}

impl MetricsFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(Arc::new(Target { path, has_ended: Mutex::new(false) }))
    }

    /// Writes regularly.
    pub(crate) async fn run(self, shared: Arc<Shared>) {
        let mut due = tokio::time::interval(shared.options.metrics_interval);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = None;
        loop {
            due.tick().await;
            let (page, target) = (snapshot(&shared).page(), Arc::clone(&self.0));
            let written = tokio::task::spawn_blocking(move || target.write(&page)).await;
            let error = written.unwrap_or_else(|error| Err(io::Error::other(error))).err();
            let error = error.map(|error| error.to_string());
            // Logged once per cause.
            if let Some(error) = error.as_ref().filter(|error| failed.as_ref() != Some(*error)) {
                let path = self.0.path.display();
                tracing::warn!(error, "cannot write metrics to {path}; see metrics-file");
            }
            failed = error;
        }
    }
}

impl Drop for MetricsFile {
    fn drop(&mut self) {
        let mut has_ended = lock(&self.0.has_ended);
        *has_ended = true;
        let _ = fs::remove_file(&self.0.path);
    }
}

impl Target {
    fn write(&self, page: &str) -> io::Result<()> {
        let has_ended = lock(&self.has_ended);
        if *has_ended { Ok(()) } else { write(&self.path, page) }
    }
}

fn snapshot(shared: &Shared) -> Snapshot {
    let kernel = shared.kernel();
    let (direct, lost) = (shared.direct.totals(&**kernel), kernel.lost());
    let has_evidence = !matches!(kernel.source(), KernelSource::Off | KernelSource::Timeout);
    drop(kernel);
    let now = realtime_secs();
    Snapshot {
        closes: shared.direct.closes(),
        short: direct.short,
        over_budget: direct.over_budget,
        lost: direct.lost,
        ports: direct.ports.len() as u64,
        events_lost: lost.total(),
        has_evidence,
        started_at: now.saturating_sub(shared.daemon_status.uptime_s()),
        now,
    }
}

/// Replaces the file: a reader sees the old or the new one.
fn write(path: &Path, page: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // The collector reads files whose name ends in .prom.
    name.push(".new");
    let new = path.with_file_name(name);
    // A new file: in a directory of others it may be a link to a file of the system.
    let _ = fs::remove_file(&new);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new)?;
    file.write_all(page.as_bytes())?;
    // Without the umask.
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_and_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t3-trace.prom");
        write(&path, "first\n").unwrap();
        write(&path, "second\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        assert!(write(&dir.path().join("missing/t3-trace.prom"), "").is_err());
        // A link in its place is replaced, and its target is not written.
        let target = dir.path().join("target");
        fs::write(&target, "kept\n").unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join("t3-trace.prom.new")).unwrap();
        write(&path, "third\n").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "kept\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "third\n");
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
        let file = MetricsFile::new(path.clone());
        let late = Arc::clone(&file.0);
        drop(file);
        late.write("late\n").unwrap();
        assert!(!path.exists());
    }
}
