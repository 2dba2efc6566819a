//! Settings of the daemon.

use std::{path::PathBuf, time::Duration};

use crate::direct::{WatchedPort, WatchedUnit};

/// Plain settings of the daemon.
#[derive(Debug, Clone)]
pub struct Options {
    /// Path of the evidence socket.
    pub socket: PathBuf,
    /// User that may register sessions, in addition to root and the daemon's own.
    pub dispatch_user: String,
    /// Group that may subscribe.
    pub group: String,
    /// Directory of the spool.
    pub state_dir: PathBuf,
    /// Size of the spool's files in bytes.
    pub spool_size: u64,
    /// Ports whose direct connections are recorded.
    pub watch: Vec<WatchedPort>,
    /// Units whose outgoing connections are recorded.
    pub watch_units: Vec<WatchedUnit>,
    /// Direct connections to serve ports are recorded.
    pub watch_serve: bool,
    /// File for the metrics.
    pub metrics_file: Option<PathBuf>,
    /// Interval between writes of that file.
    pub metrics_interval: Duration,
    /// Records are only sent to subscribers.
    pub publish_only: bool,
    /// Records are written to journald and can be looked up there.
    pub to_journald: bool,
}
