//! The command line of `t3-trace doctor`. Reads and decides nothing.

use std::path::PathBuf;

use clap::Args;
use t3_record::wire::SOCKET_PATH;

/// `t3-trace doctor`.
///
/// Says what this kernel and this machine allow, and what keeps the rest from working. Changes
/// nothing; as root, and only when no daemon runs, it attaches the kernel's hooks for a moment to
/// see whether they can be attached.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  t3-trace doctor
  t3-trace doctor --json | jq '.checks[] | select(.state != \"ok\")'
  t3-trace doctor --bundle report.tar

Exit status:
  0  nothing is broken; there may be warnings and notes
  1  something that should work does not
  2  wrong usage

What each check means and what to do: docs/DOCTOR.md.

Environment: NO_COLOR for no colours; there are none anyway where the output is no terminal.")]
pub struct DoctorArgs {
    /// The daemon's socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET_PATH)]
    pub socket: PathBuf,
    /// The routing table: which ports are serves.
    #[arg(long, value_name = "FILE", default_value = "/etc/t3-serve/dispatch.json")]
    pub table: PathBuf,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
    /// Also write what a bug report needs into this new file, as a tar. Users, addresses and
    /// credentials are taken out.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// No colours.
    #[arg(long)]
    pub plain: bool,
}
