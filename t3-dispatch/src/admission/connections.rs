//! Quota of open HTTP connections: in total, and for peers that are not trusted also together, per
//! address and per network. Pure.
//!
//! All users come through a few trusted proxies, so those have only the total. Untrusted peers
//! share a part of it: however many they are, the rest is left for the proxies.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;

use crate::metrics::reject_reason::RejectReason;

/// Part of all connections that untrusted peers may have together.
const UNTRUSTED_PART: usize = 4;
const LOOPBACK_BITS: u8 = 8;

/// Limits on open HTTP connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Of all peers.
    pub total: usize,
    /// Of one untrusted address.
    pub per_address: usize,
    /// Of one untrusted network.
    pub per_network: usize,
}

impl ConnectionLimits {
    /// Limit of all untrusted peers together.
    #[must_use]
    pub fn untrusted(self) -> usize {
        (self.total / UNTRUSTED_PART).max(1)
    }
}

/// Exhausted limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionsExceeded {
    #[error("too many connections; see --max-connections")]
    Total,
    #[error("too many connections of untrusted peers; see --max-connections")]
    Untrusted,
    #[error("too many connections of this address; see --max-connections-per-address")]
    Address,
    #[error("too many connections of this network; see --max-connections-per-network")]
    Network,
}

impl ConnectionsExceeded {
    #[must_use]
    pub const fn reason(self) -> RejectReason {
        match self {
            Self::Total => RejectReason::Connections,
            Self::Untrusted => RejectReason::UntrustedConnections,
            Self::Address => RejectReason::AddressConnections,
            Self::Network => RejectReason::NetworkConnections,
        }
    }

    /// Whether the peer itself has too many, and others are served.
    #[must_use]
    pub const fn is_of_peer(self) -> bool {
        matches!(self, Self::Address | Self::Network)
    }
}

/// Open HTTP connections and their limits.
#[derive(Debug)]
pub struct ConnectionQuota {
    limits: ConnectionLimits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    untrusted: usize,
    addresses: HashMap<IpAddr, usize>,
    networks: HashMap<IpNet, usize>,
}

impl ConnectionQuota {
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default() })
    }

    #[must_use]
    pub fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    /// Acquires a slot, which dropping the [`ConnectionPermit`] releases.
    ///
    /// # Errors
    /// [`ConnectionsExceeded`] when all slots are in use.
    pub fn acquire(
        self: &Arc<Self>,
        peer: IpAddr,
        trusted: bool,
    ) -> Result<ConnectionPermit, ConnectionsExceeded> {
        let address = (!trusted).then(|| peer.to_canonical());
        let limits = &self.limits;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= limits.total {
            return Err(ConnectionsExceeded::Total);
        }
        if let Some(address) = address {
            if open.untrusted >= limits.untrusted() {
                return Err(ConnectionsExceeded::Untrusted);
            }
            if count(&open.addresses, &address) >= limits.per_address {
                return Err(ConnectionsExceeded::Address);
            }
            let network = network(address);
            if count(&open.networks, &network) >= limits.per_network {
                return Err(ConnectionsExceeded::Network);
            }
            open.untrusted += 1;
            *open.addresses.entry(address).or_default() += 1;
            *open.networks.entry(network).or_default() += 1;
        }
        open.total += 1;
        Ok(ConnectionPermit { quota: Arc::clone(self), address })
    }

    /// Returns the number of open connections, and how many of them are of untrusted peers.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        (open.total, open.untrusted)
    }
}

fn count<K: Eq + Hash>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or(0)
}

fn decrement<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// One slot of the quota; dropping it releases the slot.
#[derive(Debug)]
#[must_use]
pub struct ConnectionPermit {
    quota: Arc<ConnectionQuota>,
    /// `None` for a trusted peer.
    address: Option<IpAddr>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.quota.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(address) = self.address {
            open.untrusted -= 1;
            decrement(&mut open.addresses, &address);
            decrement(&mut open.networks, &network(address));
        }
    }
}

/// Returns the network that an address is counted in: its /24, or /64 for IPv6. All of 127.0.0.0/8
/// is one network, because a local user can connect from each of its addresses.
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
    use proptest::prelude::*;

    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits { total: 24, per_address: 2, per_network: 3 };

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
        }
    }

    #[test]
    fn each_limit_applies_to_its_peers_only() {
        let quota = ConnectionQuota::new(LIMITS);
        let all =
            |peers: &[&str]| -> Vec<_> { peers.iter().map(|peer| quota.acquire(ip(peer), false)).collect() };
        let first = all(&["192.0.2.1", "::ffff:192.0.2.1"]);
        assert!(first.iter().all(Result::is_ok));
        assert_eq!(quota.acquire(ip("192.0.2.1"), false).unwrap_err(), ConnectionsExceeded::Address);
        let _second = quota.acquire(ip("192.0.2.2"), false).unwrap();
        assert_eq!(quota.acquire(ip("192.0.2.3"), false).unwrap_err(), ConnectionsExceeded::Network);
        let others = all(&["198.51.100.1", "203.0.113.1", "2001:db8::1"]);
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(quota.acquire(ip("2001:db8:9::1"), false).unwrap_err(), ConnectionsExceeded::Untrusted);
        let trusted: Vec<_> = (0..18).map(|_| quota.acquire(ip("192.0.2.1"), true)).collect();
        assert!(trusted.iter().all(Result::is_ok), "trusted peers have only the total");
        assert_eq!(quota.acquire(ip("192.0.2.1"), true).unwrap_err(), ConnectionsExceeded::Total);
        assert_eq!(quota.in_use(), (24, 6));
        drop(first);
        assert_eq!(quota.in_use(), (22, 4));
        assert!(quota.acquire(ip("192.0.2.1"), false).is_ok());
    }

    proptest! {
        /// The counts are those of the permits, and no limit is exceeded.
        #[test]
        fn counts_are_those_of_the_permits(
            steps in prop::collection::vec((0_u8..4, 0_u8..3, any::<bool>(), any::<bool>()), 0..200)
        ) {
            let quota = ConnectionQuota::new(LIMITS);
            let mut held = Vec::new();
            for (network, host, trusted, release) in steps {
                let peer = IpAddr::from([10, 0, network, host]);
                if release {
                    if !held.is_empty() {
                        drop(held.remove(usize::from(host) % held.len()));
                    }
                } else if let Ok(permit) = quota.acquire(peer, trusted) {
                    held.push(permit);
                }
                let untrusted: Vec<IpAddr> = held.iter().filter_map(|permit| permit.address).collect();
                prop_assert_eq!(quota.in_use(), (held.len(), untrusted.len()));
                prop_assert!(held.len() <= LIMITS.total && untrusted.len() <= LIMITS.untrusted());
                for peer in &untrusted {
                    let same = untrusted.iter().filter(|other| *other == peer).count();
                    let near = untrusted.iter().filter(|other| super::network(**other) == super::network(*peer));
                    prop_assert!(same <= LIMITS.per_address && near.count() <= LIMITS.per_network);
                }
            }
            drop(held);
            let open = quota.open.lock().unwrap();
            prop_assert!(open.addresses.is_empty() && open.networks.is_empty());
        }
    }
}
