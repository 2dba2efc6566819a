//! Users of the serve ports in [`ToTrace::Watch`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MAX_MESSAGE, ToTrace};

/// Bytes of the message without its lists.
const AROUND: usize = 64;
/// Bytes of a port in a list.
const PORT: usize = 6;

/// The user to whom a serve port belongs in the routing table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortUser {
    /// The port.
    pub port: u16,
    /// OS user.
    pub user: String,
}

impl ToTrace {
    /// A [`ToTrace::Watch`] with as many of the users as fit; of the other ports t3-trace knows
    /// only the owner of the socket.
    #[must_use]
    pub fn watch(listen: Vec<u16>, serve: Vec<u16>, users: &BTreeMap<u16, String>) -> Self {
        let ports = (listen.len() + serve.len()).saturating_mul(PORT);
        let mut room = MAX_MESSAGE.saturating_sub(AROUND).saturating_sub(ports);
        let users = users.iter().map(|(port, user)| PortUser { port: *port, user: user.clone() });
        let fitting = users.take_while(|user| {
            let length = serde_json::to_vec(user).map_or(usize::MAX, |text| text.len().saturating_add(1));
            let left = room.checked_sub(length);
            room = left.unwrap_or(0);
            left.is_some()
        });
        let users = fitting.collect();
        Self::Watch { listen, serve, users }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(message: ToTrace) -> Vec<PortUser> {
        let encoded = serde_json::to_vec(&message).unwrap();
        assert!(encoded.len() <= MAX_MESSAGE, "{}", encoded.len());
        let ToTrace::Watch { users, .. } = serde_json::from_slice(&encoded).unwrap() else { panic!() };
        users
    }

    #[test]
    fn users_are_named_as_far_as_they_fit() {
        let few = BTreeMap::from([(3773, "ann".to_owned()), (3774, "b\"\\b".to_owned())]);
        let named = users(ToTrace::watch(vec![3780], vec![3773, 3774], &few));
        let named: Vec<_> = named.into_iter().map(|of| (of.port, of.user)).collect();
        assert_eq!(named, few.into_iter().collect::<Vec<_>>());
        let many: BTreeMap<u16, String> =
            (10_000..15_000).map(|port| (port, format!("user-{port}"))).collect();
        let named = users(ToTrace::watch(vec![3780], many.keys().copied().collect(), &many));
        assert!((500..5_000).contains(&named.len()), "{}", named.len());
        assert_eq!(named[0], PortUser { port: 10_000, user: "user-10000".to_owned() });
    }

    #[test]
    fn a_message_of_an_older_dispatch_names_none() {
        let older = r#"{"t":"watch","listen":[3780],"serve":[3773]}"#;
        let read: ToTrace = serde_json::from_str(older).unwrap();
        assert_eq!(read, ToTrace::watch(vec![3780], vec![3773], &BTreeMap::new()));
        assert_eq!(serde_json::to_string(&read).unwrap(), older);
    }
}
