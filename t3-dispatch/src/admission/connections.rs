//! Quota of open HTTP connections: in total, and for peers that are not trusted also together, per
//! address or local user, and per network. Pure.
//!
//! All users come through a few trusted proxies, so those have only the total. Untrusted peers
//! share a part of it: however many they are, the rest is left for the proxies.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;

use crate::{admission::client::Client, metrics::reject_reason::RejectReason};

/// Part of all connections that untrusted peers may have together.
const UNTRUSTED_PART: usize = 4;

/// Limits on open HTTP connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Of all peers.
    pub total: usize,
    /// Of one untrusted address or local user.
    pub per_address: usize,
    /// Of one untrusted network, and of all untrusted local users.
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
    #[error("too many connections of this address or local user; see --max-connections-per-address")]
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
    clients: HashMap<Client, usize>,
    /// `None` for the users of this host.
    networks: HashMap<Option<IpNet>, usize>,
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
        client: Client,
        trusted: bool,
    ) -> Result<ConnectionPermit, ConnectionsExceeded> {
        let untrusted = (!trusted).then_some(client);
        let limits = &self.limits;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= limits.total {
            return Err(ConnectionsExceeded::Total);
        }
        if let Some(client) = untrusted {
            if open.untrusted >= limits.untrusted() {
                return Err(ConnectionsExceeded::Untrusted);
            }
            if count(&open.clients, &client) >= limits.per_address {
                return Err(ConnectionsExceeded::Address);
            }
            let network = client.network();
            if count(&open.networks, &network) >= limits.per_network {
                return Err(ConnectionsExceeded::Network);
            }
            open.untrusted += 1;
            *open.clients.entry(client).or_default() += 1;
            *open.networks.entry(network).or_default() += 1;
        }
        open.total += 1;
        Ok(ConnectionPermit { quota: Arc::clone(self), client: untrusted })
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
    client: Option<Client>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.quota.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(client) = self.client {
            open.untrusted -= 1;
            decrement(&mut open.clients, &client);
            decrement(&mut open.networks, &client.network());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::net::IpAddr;

    use super::*;
    use crate::sys::peer_owner::PeerOwner;

    const LIMITS: ConnectionLimits = ConnectionLimits { total: 24, per_address: 2, per_network: 3 };

    fn ip(text: &str) -> Client {
        Client::of(text.parse().unwrap(), PeerOwner::Remote)
    }

    fn user(uid: u32, address: &str) -> Client {
        Client::of(address.parse().unwrap(), PeerOwner::Local(Some(uid)))
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

    #[test]
    fn a_local_user_has_one_place_for_all_addresses_and_takes_none_of_others() {
        let quota = ConnectionQuota::new(LIMITS);
        let _first = quota.acquire(user(1001, "127.0.0.1"), false).unwrap();
        let second = quota.acquire(user(1001, "127.0.0.2"), false).unwrap();
        for address in ["127.0.0.1", "127.0.0.3", "::1", "192.0.2.1"] {
            let refused = quota.acquire(user(1001, address), false).unwrap_err();
            assert_eq!(refused, ConnectionsExceeded::Address, "{address}");
        }
        // Another user on the same address, and a remote client on the same network.
        let _other = quota.acquire(user(1002, "127.0.0.1"), false).unwrap();
        let _remote = quota.acquire(ip("192.0.2.1"), false).unwrap();
        assert_eq!(quota.acquire(user(1003, "::1"), false).unwrap_err(), ConnectionsExceeded::Network);
        // A trusted user needs none of these places, and takes none.
        let trusted: Vec<_> = (0..10).map(|_| quota.acquire(user(998, "127.0.0.1"), true)).collect();
        assert!(trusted.iter().all(Result::is_ok));
        drop(second);
        assert!(quota.acquire(user(1001, "::1"), false).is_ok());
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
                let address = IpAddr::from([10, 0, network, host]);
                let owner = if network == 3 { PeerOwner::Local(Some(host.into())) } else { PeerOwner::Remote };
                let peer = Client::of(address, owner);
                if release {
                    if !held.is_empty() {
                        drop(held.remove(usize::from(host) % held.len()));
                    }
                } else if let Ok(permit) = quota.acquire(peer, trusted) {
                    held.push(permit);
                }
                let untrusted: Vec<Client> = held.iter().filter_map(|permit| permit.client).collect();
                prop_assert_eq!(quota.in_use(), (held.len(), untrusted.len()));
                prop_assert!(held.len() <= LIMITS.total && untrusted.len() <= LIMITS.untrusted());
                for peer in &untrusted {
                    let same = untrusted.iter().filter(|other| *other == peer).count();
                    let near = untrusted.iter().filter(|other| other.network() == peer.network());
                    prop_assert!(same <= LIMITS.per_address && near.count() <= LIMITS.per_network);
                }
            }
            drop(held);
            let open = quota.open.lock().unwrap();
            prop_assert!(open.clients.is_empty() && open.networks.is_empty());
        }
    }
}
