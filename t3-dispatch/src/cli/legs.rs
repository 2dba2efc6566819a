//! Options: timeouts of the two legs of a WebSocket.

use std::time::Duration;

use clap::Args;

use super::value::{time, time_or_none};

/// Timeouts of the two legs of a WebSocket.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Legs and timeouts")]
pub struct LegOptions {
    /// Timeout for connecting to serve.
    #[arg(long, env = "T3_DISPATCH_CONNECT_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "5s")]
    pub connect_timeout: Duration,
    /// Timeout for serve's response to an upgrade.
    #[arg(long, env = "T3_DISPATCH_HANDSHAKE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "15s")]
    pub handshake_timeout: Duration,
    /// Idle time before TCP keepalive probes start, on both legs; 0s disables them.
    #[arg(long, env = "T3_DISPATCH_KEEPALIVE", value_name = "TIME", value_parser = time_or_none, default_value = "15s")]
    pub keepalive: Duration,
    /// Timeout for a peer to acknowledge data or probes (TCP_USER_TIMEOUT); 0s for the kernel
    /// default.
    #[arg(long, env = "T3_DISPATCH_USER_TIMEOUT", value_name = "TIME", value_parser = time_or_none, default_value = "30s")]
    pub user_timeout: Duration,
    /// Timeout for the end of a half-closed WebSocket, or after a completed close handshake,
    /// without progress.
    #[arg(long, env = "T3_DISPATCH_CLOSE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "10s")]
    pub close_timeout: Duration,
}
