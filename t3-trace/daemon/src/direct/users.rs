//! Users of serve ports by the routing tables of all connected dispatches. Pure.

use std::collections::HashMap;

use t3_record::wire::PortUser;
use t3_trace_host::kernel::ServeTuple;

/// Users by network namespace and port; `None` where two tables differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Users(HashMap<(u32, u16), Option<String>>);

impl<'a> FromIterator<(u32, &'a PortUser)> for Users {
    fn from_iter<T: IntoIterator<Item = (u32, &'a PortUser)>>(users: T) -> Self {
        let mut all = HashMap::new();
        for (netns, of) in users {
            let known = all.entry((netns, of.port)).or_insert_with(|| Some(of.user.clone()));
            if known.as_ref() != Some(&of.user) {
                *known = None;
            }
        }
        Self(all)
    }
}

impl Users {
    /// The user to whom the port of this connection belongs.
    pub(super) fn of(&self, tuple: &ServeTuple, own_namespace: u32) -> Option<&str> {
        self.0.get(&(tuple.netns.unwrap_or(own_namespace), tuple.local.port()))?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_a_user_in_its_network_namespace_only() {
        let user = |port, user: &str| PortUser { port, user: user.to_owned() };
        let table = [user(3773, "ann"), user(3774, "bob"), user(3775, "eve")];
        let other = [user(3773, "ann"), user(3774, "zoe")];
        let all = table.iter().chain(&other).map(|of| (7, of)).chain([(8, &table[1])]);
        let users: Users = all.collect();
        let of = |netns, port| {
            let local = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            users.of(&ServeTuple { local, remote: local, netns }, 8).map(str::to_owned)
        };
        assert_eq!(of(Some(7), 3773).as_deref(), Some("ann"));
        assert_eq!(of(Some(7), 3775).as_deref(), Some("eve"));
        assert_eq!(of(Some(7), 3774), None, "two tables differ");
        assert_eq!(of(Some(8), 3774).as_deref(), Some("bob"));
        assert_eq!(of(None, 3774).as_deref(), Some("bob"), "the daemon's own");
        for (netns, port) in [(Some(8), 3773), (None, 3773), (Some(9), 3774), (Some(7), 3776)] {
            assert_eq!(of(netns, port), None, "{netns:?} {port}");
        }
    }
}
