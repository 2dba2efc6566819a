//! Options: how long the two legs of a WebSocket may take, stand still and be silent.

use std::time::Duration;

use clap::Args;

use super::value::{time, time_or_none};

/// How long the two legs of a WebSocket may take, stand still and be silent.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Legs and timeouts")]
pub struct Legs {
    /// For serve to accept a connection.
    #[arg(long, env = "T3_DISPATCH_CONNECT_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "5s")]
    pub connect_timeout: Duration,
    /// For serve to answer an upgrade.
    #[arg(long, env = "T3_DISPATCH_HANDSHAKE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "15s")]
    pub handshake_timeout: Duration,
    /// Silence after which TCP keepalive probes start, on both legs; 0s for none.
    #[arg(long, env = "T3_DISPATCH_KEEPALIVE", value_name = "TIME", value_parser = time_or_none, default_value = "15s")]
    pub keepalive: Duration,
    /// How long a peer may leave data or probes unacknowledged (TCP_USER_TIMEOUT); 0s for the
    /// kernel's own limit.
    #[arg(long, env = "T3_DISPATCH_USER_TIMEOUT", value_name = "TIME", value_parser = time_or_none, default_value = "30s")]
    pub user_timeout: Duration,
    /// How long a half-closed WebSocket, or one with a completed close handshake, may stand still.
    #[arg(long, env = "T3_DISPATCH_CLOSE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "10s")]
    pub close_timeout: Duration,
}
