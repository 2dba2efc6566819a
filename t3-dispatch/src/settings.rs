//! Timeouts and limits that several folders share.

use std::time::Duration;

use crate::{http::guard, relay, sys::tcp};

/// Timeouts of t3-dispatch.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Timeout for connecting to serve.
    pub connect: Duration,
    /// Timeout for serve's reply to an upgrade.
    pub handshake: Duration,
    /// Graceful shutdown timeout after the stop signal.
    pub drain: Duration,
    /// Keepalive and TCP_USER_TIMEOUT of both legs.
    pub legs: tcp::TcpTimeouts,
    pub relay: relay::RelayTimeouts,
}

/// Limits and timeouts of HTTP connections.
#[derive(Debug, Clone, Copy)]
pub struct HttpSettings {
    pub limits: guard::Limits,
    pub client: guard::ClientTimeouts,
    /// Timeout for the start of serve's response once it has the complete request.
    pub response_timeout: Duration,
}
