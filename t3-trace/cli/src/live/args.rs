//! Options of `t3-trace live`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use t3_record::wire::SOCKET_PATH;

use crate::{
    present::{args::CommonArgs, via::ViaFilter},
    server::LokiArgs,
    store::StoreArgs,
    time::{Moment, duration, local::moment},
};

/// `t3-trace live`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  t3-trace live
  t3-trace live --user alice --short 2m
  t3-trace live --plain
  t3-trace live --json | jq .verdict
  t3-trace live --via all
  t3-trace live --at 14:10
  t3-trace live --at 'yesterday 14:10' --from loki --host devvm2

In full-screen mode ? shows the keys and Enter the evidence of a close; see docs/LIVE.md.

Exit status:
  0  stopped by a signal or key, or the reader of the output closed it
  1  runtime failure; with --at also records that cannot be read
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
    /// Sessions of t3-dispatch, other connections to watched ports, or all.
    #[arg(long, value_enum, default_value = "dispatch", value_name = "WHICH")]
    pub via: ViaFilter,
    /// One line per close, even on a terminal.
    #[arg(long)]
    pub plain: bool,
    /// Show the open sessions and the closes before this time, from records: 14:10, "2 hours ago",
    /// "2026-11-24 14:10".
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true, conflicts_with = "json")]
    pub at: Option<Moment>,
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub server: LokiArgs,
}
