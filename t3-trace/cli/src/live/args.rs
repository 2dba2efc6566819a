//! The command line of `t3-trace live`. Reads and decides nothing.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use t3_record::wire::SOCKET_PATH;

use crate::time::duration;

/// `t3-trace live`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  t3-trace live
  t3-trace live --user alice --short 2m
  t3-trace live --plain
  t3-trace live --json | jq .verdict

On the screen ? shows the keys, Enter the evidence of a close; docs/LIVE.md says more.

Exit status:
  0  stopped as told, or nobody reads any more
  1  something failed
  2  wrong usage

Environment: NO_COLOR for no colours; there are none anyway where the output is no terminal.")]
pub struct LiveArgs {
    /// The daemon's socket.
    #[arg(long, default_value = SOCKET_PATH)]
    pub socket: PathBuf,
    /// Each record as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Only this user; on the screen the filter to begin with.
    #[arg(long)]
    pub user: Option<String>,
    /// Only sessions shorter than this, for example 120s, 2m or 500ms; on the screen the filter to
    /// begin with.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub short: Option<Duration>,
    /// One line per close, also where there is a terminal for the whole screen.
    #[arg(long)]
    pub plain: bool,
}
