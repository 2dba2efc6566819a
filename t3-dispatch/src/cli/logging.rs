//! Options: destination of log lines and records.

use clap::Args;
use t3_journal::LogTarget;

/// Destination of log lines and records.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogOptions {
    /// Log target: auto, journald or stderr.
    #[arg(long, env = "T3_DISPATCH_LOG", value_name = "WHERE", default_value = "auto")]
    pub log: LogTarget,
    /// Log filter: a level, or target=level pairs.
    #[arg(long, env = "T3_DISPATCH_LOG_FILTER", value_name = "FILTER", default_value = "info")]
    pub log_filter: String,
}
