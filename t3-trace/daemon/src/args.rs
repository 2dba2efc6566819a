//! The options of the daemon. Reads and decides nothing.

use std::path::PathBuf;

use clap::Args;
use t3_journal::LogTarget;
use t3_record::wire::SOCKET_PATH;
use t3_trace_host::{journal_trust::DISPATCH_USER, kernel::Functions};

/// `t3-trace daemon`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  t3-trace daemon --log stderr
  t3-trace daemon --hooks tracepoint --dispatch-user nobody

Exit status:
  0  stopped as told
  1  a failure: another daemon on the socket, for example
  2  wrong usage")]
pub struct DaemonArgs {
    /// Where to serve evidence.
    #[arg(long, default_value = SOCKET_PATH)]
    pub socket: PathBuf,
    /// The user t3-dispatch runs as: only it (and root) may register sessions.
    #[arg(long, default_value = DISPATCH_USER, value_name = "USER")]
    pub dispatch_user: String,
    /// The group that may watch.
    #[arg(long, default_value = "t3-trace", value_name = "GROUP")]
    pub group: String,
    /// Where to log: auto, journald or stderr.
    #[arg(long, default_value = "auto", value_name = "WHERE")]
    pub log: LogTarget,
    /// What to log, in the syntax of tracing's EnvFilter.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub log_filter: String,
    /// How to hook kernel functions, beside the tracepoints.
    #[arg(long, value_enum, default_value = "best", env = "T3_TRACE_HOOKS", value_name = "WAY")]
    pub hooks: Functions,
    /// Do not load eBPF programs: only pressure.
    #[arg(long)]
    pub no_ebpf: bool,
}
