//! The request guard: reads along as a client's bytes come in, and lets nothing reach the HTTP
//! library that two parsers could read in two ways.
//!
//! A proxy that is lenient is how requests are smuggled: what it takes for one request its
//! neighbour takes for two. So the grammar of RFC 9112 holds here without its allowances, and what
//! breaks it is answered and the connection closed, with nothing of it passed on. [`framing`] is
//! the state machine, [`head`] and [`chunked`] its parts, all pure; [`stream`] is the socket that
//! it sits on.
//!
//! It never changes a byte, and is gone once a connection is a WebSocket.

pub mod chunked;
pub mod framing;
pub mod head;
pub mod stream;
mod violation;

pub use stream::{Exchange, Exchanges, Guarded, guarded_socket, is_substitute};
pub use violation::Violation;

use std::time::Duration;

/// What a request may be like.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a head, from its first to the empty line at its end.
    pub head_bytes: usize,
    /// Header fields of a head, and of a trailer section.
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
