//! Client that connections, probes and log lines are counted for: an address on the network, or a
//! user of this host. Pure.
//!
//! All processes of this host share its addresses, and each can use all of them, so they are
//! distinguished by their user.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::{http::peer::Peer, sys::peer_owner::PeerOwner};

const LOOPBACK_BITS: u8 = 8;

/// Client that connections, probes and log lines are counted for. Its text is the user, or the
/// network of the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// In canonical form: an IPv4-mapped address is IPv4.
    Address(IpAddr),
    /// User of this host; `None` if it cannot be determined.
    User(Option<u32>),
}

impl Client {
    /// Returns the client at the other end of a connection.
    #[must_use]
    pub fn of(peer: IpAddr, owner: PeerOwner) -> Self {
        match owner {
            PeerOwner::Remote => Self::Address(peer.to_canonical()),
            PeerOwner::Local(user) => Self::User(user),
            PeerOwner::Closed(_) => Self::User(None),
        }
    }

    /// Returns the network of an address; `None` for a user of this host.
    #[must_use]
    pub fn network(self) -> Option<IpNet> {
        match self {
            Self::Address(address) => Some(network(address)),
            Self::User(_) => None,
        }
    }
}

impl From<Peer> for Client {
    fn from(peer: Peer) -> Self {
        Self::of(peer.ip, peer.owner)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{}", network(*address)),
            Self::User(Some(uid)) => write!(f, "uid {uid}"),
            Self::User(None) => f.write_str("local user"),
        }
    }
}

/// Returns the network that an address is counted in: its /24, or /64 for IPv6. All of 127.0.0.0/8
/// is one network.
#[must_use]
pub fn network(peer: IpAddr) -> IpNet {
    let peer = peer.to_canonical();
    let bits = match peer {
        IpAddr::V4(peer) if peer.is_loopback() => LOOPBACK_BITS,
        IpAddr::V4(_) => 24,
        IpAddr::V6(_) => 64,
    };
    IpNet::new(peer, bits).map_or_else(|_| IpNet::from(peer), |network| network.trunc())
}

#[cfg(test)]
mod tests {
    use t3_record::evidence::SeenEnd;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_counted_in_their_network() {
        for (peer, expected) in [
            ("192.0.2.17", "192.0.2.0/24"),
            ("::ffff:192.0.2.17", "192.0.2.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
            ("127.9.9.9", "127.0.0.0/8"),
            ("::1", "::/64"),
        ] {
            assert_eq!(network(ip(peer)).to_string(), expected);
            assert_eq!(Client::of(ip(peer), PeerOwner::Remote).to_string(), expected);
        }
    }

    #[test]
    fn processes_of_this_host_are_distinguished_by_user_not_by_address() {
        for peer in ["127.0.0.1", "127.0.0.2", "::1", "192.0.2.1", "::ffff:192.0.2.1"].map(ip) {
            for (owner, expected, text) in [
                (PeerOwner::Local(Some(1001)), Client::User(Some(1001)), "uid 1001"),
                (PeerOwner::Local(Some(1002)), Client::User(Some(1002)), "uid 1002"),
                (PeerOwner::Local(None), Client::User(None), "local user"),
                (PeerOwner::Closed(SeenEnd::Eof), Client::User(None), "local user"),
            ] {
                let client = Client::of(peer, owner);
                assert_eq!(client, expected, "{peer}");
                assert_eq!((client.to_string().as_str(), client.network()), (text, None), "{peer}");
            }
            assert_eq!(Client::of(peer, PeerOwner::Remote), Client::Address(peer.to_canonical()));
        }
    }
}
