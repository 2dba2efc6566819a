//! Client side of the connection that a request came on.

use std::net::IpAddr;

use t3_record::wire::Leg;

/// What is known of the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The peer's address.
    pub ip: IpAddr,
    /// The socket.
    pub leg: Leg,
}
