//! Options: where evidence comes from, and what records may wait for.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::Args;

use super::value::answer_time;

const DEFAULT_QUEUE: NonZeroUsize = NonZeroUsize::new(t3_journal::DEFAULT_BOUND).unwrap();

/// Where evidence comes from, and what records may wait for.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evidence and records")]
pub struct Evidence {
    /// Socket of t3-trace.
    #[arg(long, env = "T3_DISPATCH_TRACE_SOCKET", value_name = "PATH", default_value = t3_record::wire::SOCKET_PATH)]
    pub trace_socket: PathBuf,
    /// How long a record waits for kernel evidence, from 10ms to 5s. More only where t3-trace is
    /// known to be slow.
    #[arg(long, env = "T3_DISPATCH_EVIDENCE_TIMEOUT", value_name = "TIME", value_parser = answer_time, default_value = "250ms")]
    pub evidence_timeout: Duration,
    /// Records that wait while journald is away, at about 1.5 KiB each; what comes beyond is lost,
    /// counted and said.
    #[arg(long, env = "T3_DISPATCH_RECORD_QUEUE", value_name = "N", default_value_t = DEFAULT_QUEUE)]
    pub record_queue: NonZeroUsize,
}
