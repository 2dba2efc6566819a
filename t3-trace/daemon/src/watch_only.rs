//! A daemon for one look: it watches ports, has no dispatch, and writes nothing.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context;
use t3_journal::{Sink, Writer};
use t3_trace_host::kernel::{self, Kernel};
use tokio::sync::oneshot;

use crate::{direct::WatchedPort, options::Options, run::run};

/// Timeout for the start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The running daemon; [`WatchOnly::finish`] ends it.
pub struct WatchOnly {
    dir: Directory,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// A directory of this process, removed with its content.
struct Directory(PathBuf);

impl Directory {
    fn create() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("t3-trace-watch-{}", std::process::id()));
        // Fails if it exists: another user may have made it.
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("evidence.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl WatchOnly {
    /// Loads the kernel side and watches these ports.
    ///
    /// # Errors
    /// The eBPF programs cannot be loaded, or the daemon does not start.
    pub fn start(ports: Vec<WatchedPort>) -> anyhow::Result<Self> {
        t3_journal::init("t3-trace", Sink::Stderr, "warn")?;
        let websockets = if ports.iter().any(|port| port.is_websocket) { kernel::WEBSOCKETS } else { 0 };
        let options = kernel::Options { socket_events: false, websockets, ..kernel::Options::default() };
        let kernel = Kernel::load(&options).context("cannot watch the kernel")?;
        let dir = Directory::create().context("cannot create a directory for the evidence socket")?;
        let options = Options {
            socket: dir.socket(),
            // Nobody registers sessions.
            dispatch_user: "root".to_owned(),
            group: "root".to_owned(),
            state_dir: dir.0.clone(),
            spool_size: 0,
            watch: ports,
            watch_units: Vec::new(),
            watch_serve: false,
            metrics_file: None,
            metrics_interval: crate::metrics::EVERY,
            publish_only: true,
            to_journald: false,
        };
        let records = Writer::start("t3-trace", Sink::Stderr, t3_journal::DEFAULT_BOUND)
            .context("cannot start the record writer")?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("daemon".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .max_blocking_threads(4)
                .enable_all()
                .build()
                .context("cannot start the async runtime")?;
            let stopped = async {
                let _ = stopped.await;
                "end of watch"
            };
            runtime.block_on(run(options, Box::new(kernel), records, stopped))
        })?;
        let watch = Self { dir, stop, thread };
        let started = Instant::now();
        while !watch.socket().exists() {
            if watch.thread.is_finished() {
                watch.finish()?;
                anyhow::bail!("the daemon ended");
            }
            anyhow::ensure!(started.elapsed() < START_TIMEOUT, "timed out waiting for the daemon");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(watch)
    }

    /// Its evidence socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.socket()
    }

    /// Ends it.
    ///
    /// # Errors
    /// Those of the daemon.
    pub fn finish(self) -> anyhow::Result<()> {
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the daemon ended by a panic")))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_directory_is_that_of_this_process_and_goes_with_it() {
        let dir = Directory::create().unwrap();
        let path = dir.0.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(dir.socket(), "").unwrap();
        assert!(Directory::create().is_err(), "one that exists is not used");
        drop(dir);
        assert!(!path.exists());
    }
}
