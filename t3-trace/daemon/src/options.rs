//! Settings of the daemon.

use std::path::PathBuf;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub socket: PathBuf,
    /// The user that may be dispatch, beside root and our own.
    pub dispatch_user: String,
    /// The group that may subscribe.
    pub group: String,
    /// Records go to journald, where they can be looked up again.
    pub to_journald: bool,
}
