//! Options of `t3-trace live`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use t3_record::wire::SOCKET_PATH;

use crate::{present::args::CommonArgs, time::duration};

/// `t3-trace live`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  t3-trace live
  t3-trace live --user alice --short 2m
  t3-trace live --plain
  t3-trace live --json | jq .verdict

In full-screen mode ? shows the keys and Enter the evidence of a close; see docs/LIVE.md.

Exit status:
  0  stopped by a signal or key, or the reader of the output closed it
  1  runtime failure
  2  usage or configuration error

Environment: NO_COLOR disables colours, unless --color says otherwise.")]
pub struct LiveArgs {
    /// Path of the evidence socket.
    #[arg(long, env = "T3_TRACE_SOCKET", value_name = "PATH", default_value = SOCKET_PATH)]
    pub socket: PathBuf,
    /// Print each record as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Only this user; initial filter in full-screen mode.
    #[arg(long)]
    pub user: Option<String>,
    /// Only sessions shorter than this, for example 120s, 2m or 500ms; initial filter in
    /// full-screen mode.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub short: Option<Duration>,
    /// One line per close, even on a terminal.
    #[arg(long)]
    pub plain: bool,
    #[command(flatten)]
    pub common: CommonArgs,
}
