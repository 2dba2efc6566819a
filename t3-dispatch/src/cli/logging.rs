//! Options: where log lines and records are written.

use clap::Args;
use t3_journal::LogTarget;

/// Where log lines and records are written.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub struct Logging {
    /// Where to write: auto, journald or stderr.
    #[arg(long, env = "T3_DISPATCH_LOG", value_name = "WHERE", default_value = "auto")]
    pub log: LogTarget,
    /// What to log: a level, or target=level pairs.
    #[arg(long, env = "T3_DISPATCH_LOG_FILTER", value_name = "FILTER", default_value = "info")]
    pub log_filter: String,
}
