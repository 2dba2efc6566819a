//! `t3-trace watch`: closed connections to a port as they happen, without configuration and
//! without t3-dispatch. Joins both halves: a daemon of its own, and `live` on its socket.

use std::{collections::BTreeSet, io::Write, time::Duration};

use clap::Args;
use t3_config::value::duration_or_zero;
use t3_trace_cli::{
    live::{self, args::LiveArgs},
    present::via::ViaFilter,
};
use t3_trace_daemon::{direct::WatchedPort, watch_only::WatchOnly};

/// `t3-trace watch`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  t3-trace watch --port 8080
  t3-trace watch --port 443,8443 --min-duration 30s
  t3-trace watch --port 8080 --json

Each line has the verdict from kernel evidence alone; ? marks a likely one. Nothing is written. For
records in the journal, set watch in /etc/t3-trace.toml.

Exit status:
  0  stopped by a signal, or the reader of the output closed it
  1  runtime failure, for example without root
  2  usage or configuration error

Environment: NO_COLOR disables colours.")]
pub struct WatchArgs {
    /// Listening ports, separated by commas
    #[arg(long, value_name = "PORT", required = true, value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// Only connections that lasted at least this long, for example 30s
    #[arg(long, value_name = "TIME", value_parser = duration_or_zero, default_value = "0s")]
    pub min_duration: Duration,
    /// Read the Close frames of plain-text WebSockets on these ports
    #[arg(long)]
    pub websocket: bool,
    /// Print each record as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Shows closes until a signal, or until the reader closes the output.
///
/// # Errors
/// The kernel side cannot be loaded, or writing fails, except with EPIPE.
pub fn run(args: &WatchArgs) -> anyhow::Result<()> {
    let ports: BTreeSet<u16> = args.port.iter().copied().collect();
    let watched = ports.iter().map(|port| WatchedPort {
        min_duration: args.min_duration,
        budget: u32::MAX,
        is_websocket: args.websocket,
        ..WatchedPort::new(*port)
    });
    let daemon = WatchOnly::start(watched.collect())?;
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let _ = writeln!(
        std::io::stderr(),
        "t3-trace watch: waiting for connections to port {} to close; Ctrl-C ends",
        ports.join(", ")
    );
    let shown = live::run(&LiveArgs {
        socket: daemon.socket(),
        json: args.json,
        plain: true,
        via: ViaFilter::Direct,
        ..LiveArgs::default()
    });
    let ended = daemon.finish();
    shown.and(ended)
}
