//! Options: kernel evidence and the record queue.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::Args;

use super::value::answer_time;

const DEFAULT_QUEUE: NonZeroUsize = NonZeroUsize::new(t3_journal::DEFAULT_BOUND).unwrap();

/// Kernel evidence and the record queue.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evidence and records")]
pub struct EvidenceOptions {
    /// Evidence socket of t3-trace.
    #[arg(long, env = "T3_DISPATCH_TRACE_SOCKET", value_name = "PATH", default_value = t3_record::wire::SOCKET_PATH)]
    pub trace_socket: PathBuf,
    /// Timeout for kernel evidence per record, from 10ms to 5s. Increase it only where t3-trace is
    /// slow.
    #[arg(long, env = "T3_DISPATCH_EVIDENCE_TIMEOUT", value_name = "TIME", value_parser = answer_time, default_value = "250ms")]
    pub evidence_timeout: Duration,
    /// Maximum number of records queued while journald is unavailable, about 1.5 KiB each; further
    /// records are dropped, counted and logged.
    #[arg(long, env = "T3_DISPATCH_RECORD_QUEUE", value_name = "N", default_value_t = DEFAULT_QUEUE)]
    pub record_queue: NonZeroUsize,
}
