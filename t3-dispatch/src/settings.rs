//! Timeouts and limits that several folders share.

use std::time::Duration;

use crate::{http::guard, relay, sys::tcp};

/// The times of one dispatch.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Time for serve to accept a connection.
    pub connect: Duration,
    /// For serve to answer an upgrade.
    pub handshake: Duration,
    /// From the word to stop to the end, at most.
    pub drain: Duration,
    /// Keepalive and user timeout of both legs.
    pub legs: tcp::Patience,
    /// What the relay waits for.
    pub relay: relay::RelayTimeouts,
}

/// What HTTP connections may be like.
#[derive(Debug, Clone, Copy)]
pub struct HttpSettings {
    /// Requests.
    pub limits: guard::Limits,
    /// Clients.
    pub patience: guard::Patience,
    /// For serve to begin its answer, once it has the whole request.
    pub response: Duration,
}
