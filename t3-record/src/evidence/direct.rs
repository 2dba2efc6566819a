//! A connection that t3-dispatch did not carry.

use std::net::SocketAddr;

use super::{KernelFacts, Nanos, SocketFacts, Task};
use crate::vocabulary::Side;

/// Facts of such a connection besides the kernel's ([`super::KernelFacts`], of which `serve` is its
/// only socket).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectConnection {
    /// Connection id.
    pub conn: String,
    /// OS user that the port belongs to, if known.
    pub user: Option<String>,
    /// systemd unit of the process that holds the socket, if known.
    pub unit: Option<String>,
    /// Address of the client; of the server if `is_outgoing`.
    pub client: SocketAddr,
    /// Listening port.
    pub port: u16,
    /// Time of its establishment, or from which the port was watched.
    pub opened_at: Nanos,
    /// It was established before `opened_at`.
    pub is_older: bool,
    /// Process on this host that held the client's end, if known.
    pub client_process: Option<Task>,
    /// Counters of the socket at the close, if known.
    pub counters: Option<Counters>,
    /// The process on this host opened it: it is the client.
    pub is_outgoing: bool,
    /// The process behind the port is a proxy: a Close frame that it sent can be of its upstream.
    pub is_proxy: bool,
    /// Its Close frames, if it is a WebSocket on a port where they are read.
    pub close_frames: Option<CloseFrames>,
}

/// A Close frame: its time, and its code if it has one.
pub type CodeAt = (Nanos, Option<u16>);

/// Close frames of a plain-text WebSocket, as the process behind the port read and sent them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CloseFrames {
    /// The client's, at the time it was read.
    pub received: Option<CodeAt>,
    /// That of the process behind the port.
    pub sent: Option<CodeAt>,
    /// All frames that the process read were seen, so that it read no Close frame that is missing
    /// here.
    pub is_read_complete: bool,
    /// Bytes came in that the process never read: perhaps a Close frame.
    pub has_unread: bool,
    /// All frames that the process sent were seen.
    pub is_sent_complete: bool,
}

impl CloseFrames {
    /// The first Close frame and the end it is from, if no other can have been before it.
    #[must_use]
    pub fn first(&self) -> Option<(Side, CodeAt)> {
        match (self.received, self.sent) {
            (Some(received), Some(sent)) if received.0 <= sent.0 => Some((Side::Down, received)),
            (Some(_), Some(sent)) => Some((Side::Up, sent)),
            (Some(received), None) => self.is_sent_complete.then_some((Side::Down, received)),
            (None, Some(sent)) => self.is_read_complete.then_some((Side::Up, sent)),
            (None, None) => None,
        }
    }

    /// Nothing of either direction was missed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_read_complete && !self.has_unread && self.is_sent_complete
    }
}

/// Counters of a socket (`struct tcp_sock`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes sent and acknowledged.
    pub acked: u64,
    /// Bytes sent and not acknowledged, without retransmissions.
    pub unacked_bytes: u64,
    /// Bytes received.
    pub received: u64,
    /// Smoothed RTT in microseconds.
    pub rtt_us: u32,
    /// Segments retransmitted over the life of the connection.
    pub total_retrans: u32,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Segments considered lost.
    pub lost: u32,
}

/// The upstream connection of a proxy that is paired with a [`DirectConnection`], the one that the
/// proxy accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConnection {
    /// Address to which the proxy connected.
    pub address: SocketAddr,
    /// Address of the proxy on that connection.
    pub from: SocketAddr,
    /// The proxy.
    pub proxy: Option<Task>,
    /// systemd unit of the proxy, if known.
    pub proxy_unit: Option<String>,
    /// systemd unit of the process behind the address, if known.
    pub unit: Option<String>,
    /// Counters of the proxy's socket at the close, if known.
    pub counters: Option<Counters>,
}

/// Facts of a pair: both sockets of the proxy, and what is known of each process.
#[derive(Debug, Clone, PartialEq)]
pub struct PairFacts {
    /// Socket of the connection that the proxy accepted.
    pub down: SocketFacts,
    /// Socket of the connection that it opened.
    pub up: SocketFacts,
    /// Facts of the proxy: `peer` is its process; its sockets are above.
    pub proxy: KernelFacts,
    /// Facts of the process behind `up`, if its end is watched on this host: `serve` is its socket
    /// and `peer` its process.
    pub upstream: Option<KernelFacts>,
}
