//! Client side of the connection that a request came on.

use std::net::IpAddr;

use t3_record::wire::Leg;

use crate::sys::peer_owner::PeerOwner;

/// Connection of a request.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub ip: IpAddr,
    /// Socket of the downstream leg.
    pub leg: Leg,
    /// Owner of the other end, determined once per connection.
    pub owner: PeerOwner,
}
