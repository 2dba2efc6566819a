//! Options: listening address and shutdown timeout.

use std::{net::SocketAddr, time::Duration};

use clap::Args;

use super::value::time;

/// Listening address and shutdown timeout.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listening")]
pub struct ListenOptions {
    /// Address to listen on; a socket passed by systemd is used instead when there is one.
    #[arg(long, env = "T3_DISPATCH_LISTEN", value_name = "ADDR:PORT", default_value = "[::]:3780")]
    pub listen: SocketAddr,
    /// Graceful shutdown timeout (drain) after the stop signal.
    #[arg(long, env = "T3_DISPATCH_DRAIN_TIME", value_name = "TIME", value_parser = time, default_value = "5s")]
    pub drain_time: Duration,
}
