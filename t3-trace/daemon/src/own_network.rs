//! Changes of the host's own network that can end a session: the link, an address or a route of one
//! of its legs. Kept with their times, from rtnetlink.
//!
//! [`Changes`] is pure. The socket comes from systemd (t3-trace-netlink.socket), because the daemon
//! is in a private network namespace; started by hand, the daemon opens it.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex},
};

use t3_record::{
    evidence::{Nanos, NetworkChange, NetworkEvent},
    vocabulary::Side,
    wire::Leg,
};
use t3_trace_host::{
    clock::monotonic,
    proc::network_namespace,
    rtnetlink::{Message, Rtnetlink},
};

use crate::{locked::lock, poll};

/// Kept changes.
const KEPT: usize = 256;
/// Changes in one reply.
const REPORTED: usize = 8;
/// Longest packet of the kernel (NLMSG_GOODSIZE is at most 32 KiB).
const PACKET: usize = 64 * 1024;

/// Object of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    /// A link, by its index.
    Link(u32),
    /// An address.
    Address(IpAddr),
    /// A route to a prefix.
    Route(IpAddr, u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    at: Nanos,
    object: Object,
    /// It is up or present since then.
    is_well: bool,
}

/// State and last changes of the network of one namespace.
#[derive(Debug, Default)]
pub struct Changes {
    links: HashMap<u32, (String, bool)>,
    /// Link of each address, also of one that was removed.
    addresses: HashMap<IpAddr, (u32, bool)>,
    events: VecDeque<Event>,
}

impl Changes {
    /// Adds a message; an item that was not known is not a change.
    pub fn add(&mut self, message: Message, at: Nanos) {
        match message {
            Message::Link { index, name, is_up } => {
                let known = self.links.insert(index, (name, is_up));
                if known.is_some_and(|(_, was_up)| was_up != is_up) {
                    self.push(Object::Link(index), is_up, at);
                }
            }
            Message::LinkGone { index } => {
                if self.links.remove(&index).is_some_and(|(_, was_up)| was_up) {
                    self.push(Object::Link(index), false, at);
                }
            }
            Message::Address { index, ip, is_present } => {
                let ip = ip.to_canonical();
                let known = self.addresses.insert(ip, (index, is_present));
                // Of one that is not known only the removal is a change.
                if known.map_or(!is_present, |(_, was_present)| was_present != is_present) {
                    self.push(Object::Address(ip), is_present, at);
                }
            }
            Message::Route { to, length, is_present } => {
                let object = Object::Route(to, length);
                let last = self.events.iter().rev().find(|event| event.object == object);
                // Routes are not listed at the start: one that appears was missing only if its
                // removal was seen.
                if last.map_or(!is_present, |last| last.is_well != is_present) {
                    self.push(object, is_present, at);
                }
            }
        }
    }

    fn push(&mut self, object: Object, is_well: bool, at: Nanos) {
        let name = match object {
            Object::Link(index) => self.links.get(&index).map(|(name, _)| name.clone()),
            _ => None,
        };
        tracing::info!(?object, name, is_well, "network of this host changed");
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Event { at, object, is_well });
    }

    /// Changes since a given time that concern a leg, oldest first.
    #[must_use]
    pub fn of_leg(&self, side: Side, leg: &Leg, since: Nanos) -> Vec<NetworkEvent> {
        let (local, remote) = (leg.local.ip().to_canonical(), leg.remote.ip().to_canonical());
        let link = self.addresses.get(&local).map(|(index, _)| *index);
        let concerns = |object: Object| match object {
            Object::Link(index) => link == Some(index),
            Object::Address(ip) => ip == local,
            // Packets to an own address do not leave the host.
            Object::Route(to, length) => !self.is_own(remote) && covers(to, length, remote),
        };
        let events = self.events.iter().filter(|event| event.at >= since && concerns(event.object));
        events.map(|event| NetworkEvent { side, change: change(event), at: event.at }).collect()
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.addresses.get(&ip).is_some_and(|(_, is_present)| *is_present)
    }
}

const fn change(event: &Event) -> NetworkChange {
    match (event.object, event.is_well) {
        (Object::Link(_), false) => NetworkChange::LinkDown,
        (Object::Link(_), true) => NetworkChange::LinkUp,
        (Object::Address(_), false) => NetworkChange::AddressRemoved,
        (Object::Address(_), true) => NetworkChange::AddressAdded,
        (Object::Route(..), false) => NetworkChange::RouteRemoved,
        (Object::Route(..), true) => NetworkChange::RouteAdded,
    }
}

/// Whether an address is in a prefix.
fn covers(to: IpAddr, length: u8, ip: IpAddr) -> bool {
    let same = |a: u128, b: u128, bits: u32| {
        let host_bits = bits.saturating_sub(u32::from(length));
        a.checked_shr(host_bits).unwrap_or(0) == b.checked_shr(host_bits).unwrap_or(0)
    };
    match (to, ip) {
        (IpAddr::V4(to), IpAddr::V4(ip)) => same(u128::from(to.to_bits()), u128::from(ip.to_bits()), 32),
        (IpAddr::V6(to), IpAddr::V6(ip)) => same(to.to_bits(), ip.to_bits(), 128),
        _ => false,
    }
}

/// The network of this host; observes nothing where that is not possible.
#[derive(Debug, Default)]
pub(crate) struct OwnNetwork {
    changes: Mutex<Changes>,
    /// Inode of the observed namespace.
    namespace: Option<u32>,
}

impl OwnNetwork {
    /// Changes that concern the legs of a session in this namespace, since a given time.
    pub(crate) fn changes(
        &self,
        namespace: Option<u32>,
        legs: [(Side, Option<Leg>); 2],
        since: Nanos,
    ) -> Vec<NetworkEvent> {
        if self.namespace.is_none() || namespace != self.namespace {
            return Vec::new();
        }
        let changes = lock(&self.changes);
        let legs = legs.into_iter().filter_map(|(side, leg)| Some((side, leg?)));
        let mut found: Vec<_> = legs.flat_map(|(side, leg)| changes.of_leg(side, &leg, since)).collect();
        found.sort_by_key(|event| event.at);
        found.split_off(found.len().saturating_sub(REPORTED))
    }
}

/// Socket and state, and the task that reads the socket.
pub(crate) struct Observer {
    pub(crate) network: Arc<OwnNetwork>,
    socket: Option<Rtnetlink>,
}

impl Observer {
    /// With the socket that systemd passed, or with a new one.
    pub(crate) fn start(inherited: Option<OwnedFd>) -> Self {
        // systemd opens its socket in its own namespace.
        let (socket, process) = match inherited {
            Some(socket) => (Rtnetlink::inherited(socket), 1),
            None => (Rtnetlink::open(), std::process::id()),
        };
        match socket {
            Ok(socket) => {
                let network = OwnNetwork { namespace: network_namespace(process), ..OwnNetwork::default() };
                Self { network: Arc::new(network), socket: Some(socket) }
            }
            Err(error) => {
                let hint = "see t3-trace-netlink.socket";
                tracing::info!(%error, hint, "changes of the host's network are not observed");
                Self { network: Arc::default(), socket: None }
            }
        }
    }

    /// Reads changes until the socket fails.
    pub(crate) async fn run(self) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = self.follow(socket).await {
            tracing::warn!(%error, "changes of the host's network are no longer observed");
        }
    }

    async fn follow(&self, socket: &Rtnetlink) -> std::io::Result<()> {
        let mut polled = poll::readable(socket.as_fd())?;
        let mut buffer = vec![0; PACKET];
        socket.list_links()?;
        // The kernel makes one list at a time.
        let mut addresses_due = true;
        loop {
            let mut ready = polled.readable_mut().await?;
            loop {
                match socket.receive(&mut buffer) {
                    Ok(Some(messages)) => {
                        let mut changes = lock(&self.network.changes);
                        messages.into_iter().for_each(|message| changes.add(message, monotonic()));
                    }
                    Ok(None) => break,
                    // Messages were lost, not the state of later ones.
                    Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
                    Err(error) => return Err(error),
                }
            }
            ready.clear_ready();
            if std::mem::take(&mut addresses_due) {
                socket.list_addresses()?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(local: &str, remote: &str) -> Leg {
        Leg {
            cookie: 1,
            local: format!("{local}:3780").parse().unwrap(),
            remote: format!("{remote}:5").parse().unwrap(),
        }
    }

    fn link(index: u32, is_up: bool) -> Message {
        Message::Link { index, name: format!("eth{index}"), is_up }
    }

    fn address(index: u32, ip: &str, is_present: bool) -> Message {
        Message::Address { index, ip: ip.parse().unwrap(), is_present }
    }

    fn route(to: &str, length: u8, is_present: bool) -> Message {
        Message::Route { to: to.parse().unwrap(), length, is_present }
    }

    fn changes(messages: impl IntoIterator<Item = Message>) -> Changes {
        let mut changes = Changes::default();
        for (at, message) in (1..).zip(messages) {
            changes.add(message, at);
        }
        changes
    }

    fn of(changes: &Changes, leg: &Leg) -> Vec<(NetworkChange, Nanos)> {
        changes.of_leg(Side::Down, leg, 0).into_iter().map(|event| (event.change, event.at)).collect()
    }

    #[test]
    fn the_list_at_the_start_is_not_a_change() {
        let listed = changes([
            link(1, true),
            link(2, true),
            address(2, "192.0.2.2", true),
            link(2, true),
            route("0.0.0.0", 0, true),
        ]);
        assert_eq!(of(&listed, &leg("192.0.2.2", "203.0.113.7")), []);
    }

    #[test]
    fn only_the_link_the_address_and_the_route_of_a_leg_count() {
        let seen = changes([
            link(2, true),
            address(2, "192.0.2.2", true),
            link(3, true),
            link(3, false),
            link(2, false),
            link(2, true),
            address(2, "192.0.2.2", false),
            address(2, "192.0.2.9", false),
            route("203.0.113.0", 24, false),
            route("203.0.113.0", 24, true),
            route("198.51.100.0", 24, false),
            route("0.0.0.0", 0, false),
        ]);
        assert_eq!(
            of(&seen, &leg("192.0.2.2", "203.0.113.7")),
            [
                (NetworkChange::LinkDown, 5),
                (NetworkChange::LinkUp, 6),
                (NetworkChange::AddressRemoved, 7),
                (NetworkChange::RouteRemoved, 9),
                (NetworkChange::RouteAdded, 10),
                (NetworkChange::RouteRemoved, 12),
            ]
        );
        assert_eq!(seen.of_leg(Side::Down, &leg("192.0.2.2", "203.0.113.7"), 12).len(), 1);
        assert_eq!(of(&seen, &leg("127.0.0.1", "127.0.0.1")), [], "the loopback needs no route");
    }

    #[test]
    fn a_removed_link_is_down() {
        let seen = changes([link(2, true), address(2, "192.0.2.2", true), Message::LinkGone { index: 2 }]);
        assert_eq!(of(&seen, &leg("192.0.2.2", "203.0.113.7")), [(NetworkChange::LinkDown, 3)]);
    }

    #[test]
    fn prefixes_cover_their_addresses() {
        let in_prefix = |to: &str, length, ip: &str| covers(to.parse().unwrap(), length, ip.parse().unwrap());
        assert!(in_prefix("10.0.0.0", 8, "10.255.0.1") && !in_prefix("10.0.0.0", 8, "11.0.0.1"));
        assert!(in_prefix("0.0.0.0", 0, "203.0.113.7") && in_prefix("::", 0, "2001:db8::1"));
        assert!(in_prefix("2001:db8::", 32, "2001:db8::1") && !in_prefix("2001:db8::", 32, "2001:db9::1"));
        assert!(!in_prefix("0.0.0.0", 0, "2001:db8::1"));
        assert!(in_prefix("192.0.2.7", 32, "192.0.2.7") && !in_prefix("192.0.2.7", 32, "192.0.2.6"));
    }

    #[test]
    fn sessions_of_another_namespace_have_no_changes() {
        let network = OwnNetwork {
            changes: Mutex::new(changes([link(2, true), address(2, "192.0.2.2", true), link(2, false)])),
            namespace: Some(7),
        };
        let legs = [(Side::Down, Some(leg("192.0.2.2", "203.0.113.7"))), (Side::Up, None)];
        assert_eq!(network.changes(Some(7), legs, 0).len(), 1);
        assert_eq!(network.changes(Some(8), legs, 0), []);
        assert_eq!(network.changes(None, legs, 0), []);
    }
}
