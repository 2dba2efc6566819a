//! A connection that t3-dispatch did not carry.

use std::net::SocketAddr;

use super::{Nanos, Task};

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
