//! Check of the routing table's OS users: an entry whose user this host does not have, without a
//! `uid`, can have no serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::plain::plain;
use crate::routing::table::Table;

/// Limit of the time of all lookups: an unreachable directory must not delay the start of the unit.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Returns a warning for each user of the table that this host does not have. `uid_of` looks up a
/// user, and may block.
pub(super) fn warnings(
    table: &Table,
    uid_of: impl Fn(&str) -> Option<u32> + Send + 'static,
    limit: Duration,
) -> Vec<String> {
    // With a uid in the entry, the name is for the log and the mint only.
    let routes = table.routes().filter(|(_, route)| route.uid.is_none());
    let mut logins = BTreeMap::<&str, BTreeSet<&str>>::new();
    for (login, route) in routes {
        logins.entry(&route.os_user).or_default().insert(login);
    }
    let users: Vec<String> = logins.keys().map(ToString::to_string).collect();
    let (sender, results) = mpsc::channel();
    // Not joined: a lookup that does not end must not be waited for.
    thread::spawn(move || users.iter().all(|user| sender.send(uid_of(user).is_some()).is_ok()));
    let until = Instant::now() + limit;
    let mut warnings = Vec::new();
    for (user, logins) in &logins {
        match results.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(true) => {}
            Ok(false) => {
                let logins: Vec<_> = logins.iter().map(|login| plain(login)).collect();
                warnings.push(format!(
                    "{}: os_user {} does not exist on this host, so no serve is accepted for it: correct it, \
                     or set \"uid\" of the entry if the serve is in a container",
                    logins.join(", "),
                    plain(user)
                ));
            }
            Err(_) => {
                warnings.push(format!(
                    "cannot look up the os_users of the routing table within {limit:?}: `getent passwd {}` \
                     does not answer",
                    plain(user)
                ));
                break;
            }
        }
    }
    warnings
}

/// [`warnings`] with the users of this host.
pub(super) fn on_this_host(table: &Table) -> Vec<String> {
    warnings(table, crate::sys::users::uid_of, TIMEOUT)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn table(text: &str) -> Table {
        Table::parse(text, Path::new("t")).unwrap()
    }

    #[test]
    fn a_user_that_does_not_exist_is_named_once_unless_the_entry_has_a_uid() {
        let known = |user: &str| (user == "ann").then_some(1001);
        let second = Duration::from_secs(1);
        for (text, expected) in [
            ("{}", vec![]),
            (r#"{"ann": {"os_user": "ann", "port": 1}}"#, vec![]),
            (r#"{"bob": {"os_user": "bob", "port": 1, "uid": 100000}}"#, vec![]),
            (r#"{"bob": {"os_user": "bob", "port": 1}}"#, vec!["bob: os_user bob does"]),
            (
                r#"{"b@x": {"os_user": "bob", "port": 1}, "a": {"os_user": "ann", "port": 2},
                    "b": {"os_user": "bob", "port": 1}, "c": {"os_user": "carl", "port": 3}}"#,
                vec!["b, b@x: os_user bob does", "c: os_user carl does"],
            ),
        ] {
            let found = warnings(&table(text), known, second);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{found}");
            }
        }
    }

    #[test]
    fn a_directory_that_does_not_answer_delays_nothing() {
        let table = table(r#"{"a": {"os_user": "ann", "port": 1}, "b": {"os_user": "bob", "port": 2}}"#);
        let started = Instant::now();
        let slow = |_: &str| {
            thread::sleep(Duration::from_secs(60));
            None
        };
        let found = warnings(&table, slow, Duration::from_millis(50));
        assert!(found.len() == 1 && found[0].contains("does not answer"), "{found:?}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}
