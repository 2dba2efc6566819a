//! Options of `t3-trace doctor`.

use std::path::PathBuf;

use clap::Args;
use t3_record::wire::SOCKET_PATH;

use crate::present::args::CommonArgs;

/// Check kernel and host support; explain missing parts.
///
/// Changes nothing, except as root: it writes one test entry to the journal and searches for it,
/// and without a daemon it attaches the kernel hooks briefly as a test.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  t3-trace doctor
  t3-trace doctor --json | jq '.checks[] | select(.state != \"ok\")'
  t3-trace doctor --bundle report.tar

Exit status:
  0  nothing broken (warnings and notes are possible)
  1  a check is broken, or a runtime failure
  2  usage or configuration error

docs/DOCTOR.md describes each check.

Environment: NO_COLOR disables colours, unless --color says otherwise.")]
pub struct DoctorArgs {
    /// Path of the evidence socket
    #[arg(long, env = "T3_TRACE_SOCKET", value_name = "PATH", default_value = SOCKET_PATH)]
    pub socket: PathBuf,
    /// Path of the routing table, which lists the serve ports
    #[arg(long, env = "T3_TRACE_TABLE", value_name = "FILE", default_value = "/etc/t3-serve/dispatch.json")]
    pub table: PathBuf,
    /// Print as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Also write a tar for a bug report to this new file; user names, addresses and credentials
    /// are removed
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// The same as --color=never
    #[arg(long)]
    pub plain: bool,
    #[command(flatten)]
    pub common: CommonArgs,
}
