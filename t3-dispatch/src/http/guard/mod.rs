//! Request guard: checks a client's bytes before the HTTP library reads them, and rejects requests
//! that two parsers could interpret differently.
//!
//! A lenient proxy allows request smuggling: it reads one request where the next hop reads two. So
//! the guard enforces the grammar of RFC 9112 without its optional leniency; a violation is
//! answered, the connection is closed, and no byte of the request is forwarded. [`framing`] is the
//! state machine, [`head`] and [`chunked`] its parts, all pure; [`stream`] is the guarded socket.
//!
//! It never changes a byte, and is removed once a connection is a WebSocket.

pub mod chunked;
pub mod framing;
pub mod head;
pub mod interim;
pub mod stream;
mod violation;

pub use interim::InterimSender;
pub use stream::{Exchange, Exchanges, Guarded, guarded_socket, is_substitute};
pub use violation::Violation;

use std::time::Duration;

/// Limits on a request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Size of a head in bytes, including the empty line at its end.
    pub head_bytes: usize,
    /// Number of fields in a head or in a trailer section.
    pub fields: usize,
}

/// How long is waited for a client.
#[derive(Debug, Clone, Copy)]
pub struct ClientTimeouts {
    /// For the rest of a head that has begun.
    pub head: Duration,
    /// For the next bytes of a body.
    pub body: Duration,
    /// For the next request.
    pub idle: Duration,
}
