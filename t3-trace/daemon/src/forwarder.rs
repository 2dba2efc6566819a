//! Processes behind serve's port that only forward to the real serve: `docker-proxy`, `ssh -L`,
//! `systemd-socket-proxyd`, `socat`. What they do says little about serve.
//!
//! Recognised by name, or by their descriptors: as many connected as accepted connections, and no
//! regular file. A serve that calls an API has connected sockets, too, but keeps its database open.
//!
//! Limits: a forwarder that shares one connection (as `ssh` does) or that forwards to a Unix socket
//! is recognised only by name; so is one that starts a process per connection. A serve without an
//! open file and by chance with equal numbers is taken for a forwarder: its records then say
//! `likely`.
//!
//! The sockets are gone when a session ends, so a port is examined after a session opened, at most
//! every ten seconds, and on the thread that searches listeners.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use t3_trace_host::proc::{self, Descriptors, net};

/// Minimum time between two examinations of a port.
const EVERY: Duration = Duration::from_secs(10);
/// Remembered forwarders.
const KEPT: usize = 1024;

/// `comm` of programs that forward, cut by the kernel to 15 bytes.
const NAMES: [&str; 10] = [
    "docker-proxy",
    "haproxy",
    "kubectl",
    "nginx",
    "pasta",
    "rootlessport",
    "slirp4netns",
    "socat",
    "ssh",
    "systemd-socket-",
];

/// Pid and start time in clock ticks.
pub(crate) type ProcessKey = (u32, u64);

#[derive(Debug, Default)]
struct State {
    /// Ports with a session since the last examination.
    due: HashSet<u16>,
    examined: HashMap<u16, Instant>,
    found: HashSet<ProcessKey>,
}

/// Forwarders among the listeners.
#[derive(Debug, Default)]
pub(crate) struct Forwarders {
    state: Mutex<State>,
}

impl Forwarders {
    /// A session opened on this port.
    pub(crate) fn opened(&self, port: u16) {
        self.lock().due.insert(port);
    }

    /// Whether a process forwards.
    pub(crate) fn contains(&self, comm: &str, process: Option<ProcessKey>) -> bool {
        NAMES.contains(&comm) || process.is_some_and(|process| self.lock().found.contains(&process))
    }

    /// Ports to examine now.
    pub(crate) fn take_due(&self) -> HashSet<u16> {
        let mut state = self.lock();
        let state = &mut *state;
        let examined = &mut state.examined;
        let is_due = |port: &u16| examined.get(port).is_none_or(|then| then.elapsed() >= EVERY);
        let due: HashSet<u16> = state.due.extract_if(is_due).collect();
        examined.extend(due.iter().map(|port| (*port, Instant::now())));
        due
    }

    /// Examines processes that listen on `port`, in the network namespace of `namespace_of`.
    pub(crate) fn examine(
        &self,
        port: u16,
        namespace_of: u32,
        processes: impl IntoIterator<Item = ProcessKey>,
    ) {
        let mut rows = None;
        for process in processes {
            let descriptors = proc::descriptors(process.0);
            if descriptors.has_files {
                continue;
            }
            let rows = rows.get_or_insert_with(|| net::connections(namespace_of).collect::<Vec<_>>());
            let mut state = self.lock();
            if forwards(&descriptors, port, rows) && state.found.len() < KEPT {
                state.found.insert(process);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a process holds as many connected as accepted connections, and no regular file.
fn forwards(descriptors: &Descriptors, port: u16, rows: &[net::Row]) -> bool {
    let held: HashSet<u64> = descriptors.sockets.iter().copied().collect();
    let own = rows.iter().filter(|row| held.contains(&row.inode));
    let (accepted, connected): (Vec<&net::Row>, Vec<&net::Row>) =
        own.partition(|row| row.local.port() == port);
    !descriptors.has_files && !accepted.is_empty() && accepted.len() == connected.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(inode: u64, local: u16, remote: u16) -> net::Row {
        let address = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        net::Row { local: address(local), remote: address(remote), listening: false, uid: 0, inode }
    }

    fn holding(sockets: &[u64], has_files: bool) -> Descriptors {
        Descriptors { sockets: sockets.to_vec(), has_files }
    }

    #[test]
    fn a_forwarder_has_one_connection_for_each_that_it_accepted() {
        let rows = [
            row(1, 3773, 40_000),
            row(2, 3773, 40_001),
            row(3, 50_000, 4000),
            row(4, 50_001, 4000),
            row(9, 1, 2),
        ];
        assert!(forwards(&holding(&[1, 2, 3, 4, 77], false), 3773, &rows));
        assert!(!forwards(&holding(&[1, 2, 3, 4], true), 3773, &rows), "it keeps a database open");
        assert!(!forwards(&holding(&[1, 2, 3], false), 3773, &rows), "one call to an API");
        assert!(!forwards(&holding(&[1, 2], false), 3773, &rows), "it answers itself");
        assert!(!forwards(&holding(&[3, 4], false), 3773, &rows), "nothing accepted");
        assert!(!forwards(&holding(&[], false), 3773, &rows));
    }

    #[test]
    fn a_known_forwarder_is_recognised_by_its_name() {
        let forwarders = Forwarders::default();
        assert!(forwarders.contains("docker-proxy", None) && forwarders.contains("systemd-socket-", None));
        assert!(!forwarders.contains("node", None) && !forwarders.contains("sshd-session", None));
    }

    #[test]
    fn a_port_is_examined_once_in_a_while() {
        let forwarders = Forwarders::default();
        forwarders.opened(3773);
        assert_eq!(forwarders.take_due(), HashSet::from([3773]));
        forwarders.opened(3773);
        forwarders.opened(3774);
        assert_eq!(forwarders.take_due(), HashSet::from([3774]));
    }
}
