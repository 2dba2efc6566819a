//! A daemon in this process with a journald that the test reads.

use std::{
    os::unix::net::UnixDatagram,
    path::PathBuf,
    time::{Duration, Instant},
};

use t3_journal::{Sink, Writer};
use t3_trace_daemon::{metrics, options::Options, run};
use t3_trace_host::kernel::view::KernelView;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Size of the writer's queue in records.
const QUEUE: usize = 100_000;

/// A running daemon; its directory is removed at the end.
pub struct RunningDaemon {
    pub socket: PathBuf,
    stop: oneshot::Sender<()>,
    running: JoinHandle<anyhow::Result<()>>,
    _dir: TempDir,
}

impl RunningDaemon {
    /// Starts it with these changes of the options, and waits for its socket. Records arrive on the
    /// returned socket.
    pub async fn start(
        kernel: Box<dyn KernelView>,
        change: impl FnOnce(&mut Options),
    ) -> (Self, UnixDatagram) {
        let dir = tempfile::tempdir().unwrap();
        let (socket, journal) = (dir.path().join("evidence.sock"), dir.path().join("journal"));
        let journald = UnixDatagram::bind(&journal).unwrap();
        let records = Writer::start_with("t3-dispatch", Sink::Journald, &journal, QUEUE).unwrap();
        let mut options = Options {
            socket: socket.clone(),
            dispatch_user: "no-such-user-here".to_owned(),
            group: "no-such-group-here".to_owned(),
            state_dir: dir.path().join("state"),
            spool_size: 1 << 16,
            watch: Vec::new(),
            watch_units: Vec::new(),
            watch_serve: true,
            metrics_file: None,
            metrics_interval: metrics::EVERY,
            publish_only: false,
            // The journald of the test cannot be queried.
            to_journald: false,
        };
        change(&mut options);
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await;
            "end of the test"
        };
        let running = tokio::spawn(run::run(options, kernel, records, stopped));
        let started = Instant::now();
        while !socket.exists() {
            assert!(started.elapsed() < TIMEOUT, "the daemon does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (Self { socket, stop, running, _dir: dir }, journald)
    }

    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.running.await.unwrap().unwrap();
        assert!(!self.socket.exists(), "the daemon removes the socket's file");
    }
}
