//! The descriptor store of systemd (sd_notify(3): `FDSTORE=1`, `FDSTOREREMOVE=1`).
//!
//! A thread sends the messages, in order and in batches: systemd may be slow, and a relay must not
//! wait for it. A session that has ended waits until systemd has closed its copies of the sockets
//! (`BARRIER=1`), because only the last close of a socket ends its connection.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};
use sd_notify::NotifyState;
use tokio::sync::oneshot;

/// Name of the memory of all sessions in the store.
pub const STATE: &str = "state";

/// Most orders between two waits for systemd.
const BATCH: usize = 256;
/// Limit of the wait for systemd. A session whose sockets are still in the store afterwards is
/// ended by `shutdown(2)`.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(1);

enum Order {
    Add { name: String, sockets: Vec<OwnedFd> },
    Remove { name: String, removed: oneshot::Sender<bool> },
    Flush(oneshot::Sender<bool>),
}

/// Sends messages to the service manager.
pub trait Notifier: Send + 'static {
    /// Sends one message with descriptors.
    ///
    /// # Errors
    /// As `sendmsg`.
    fn send(&mut self, states: &[NotifyState<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<()>;
}

/// The service manager of `$NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct ServiceManager;

impl Notifier for ServiceManager {
    fn send(&mut self, states: &[NotifyState<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        sd_notify::notify_with_fds(states, fds)
    }
}

/// Handle of the thread.
#[derive(Debug, Clone)]
pub struct DescriptorStore {
    orders: Sender<Order>,
}

/// Most descriptors that the service manager keeps for this service; `None` without a store.
#[must_use]
pub fn capacity() -> Option<usize> {
    capacity_of(|name| std::env::var(name).ok())
}

/// systemd 254 and newer set `$FDSTORE`; for older ones the unit sets `$FDSTORE_MAX`. Two names,
/// because a unit that sets `$FDSTORE` would hide systemd's own value.
fn capacity_of(variable: impl Fn(&str) -> Option<String>) -> Option<usize> {
    variable("NOTIFY_SOCKET")?;
    let most = variable("FDSTORE").or_else(|| variable("FDSTORE_MAX"))?;
    most.parse().ok().filter(|most| *most > 0)
}

impl DescriptorStore {
    /// Starts the thread.
    ///
    /// # Errors
    /// As [`std::thread::Builder::spawn`].
    pub fn start(notifier: impl Notifier) -> io::Result<Self> {
        let (orders, received) = channel();
        std::thread::Builder::new().name("fd-store".to_owned()).spawn(move || run(notifier, &received))?;
        Ok(Self { orders })
    }

    /// Adds descriptors under a name.
    pub fn add(&self, name: String, sockets: Vec<OwnedFd>) {
        let _ = self.orders.send(Order::Add { name, sockets });
    }

    /// Removes all descriptors with a name. The result is `true` once the service manager has
    /// closed them, and `false` if it does not respond.
    pub fn remove(&self, name: String) -> oneshot::Receiver<bool> {
        let (removed, wait) = oneshot::channel();
        let _ = self.orders.send(Order::Remove { name, removed });
        wait
    }

    /// Waits until the service manager has processed all messages sent before.
    pub fn flush(&self) -> oneshot::Receiver<bool> {
        let (flushed, wait) = oneshot::channel();
        let _ = self.orders.send(Order::Flush(flushed));
        wait
    }
}

fn run(mut notifier: impl Notifier, orders: &Receiver<Order>) {
    let mut has_failed = false;
    while let Ok(first) = orders.recv() {
        let batch = std::iter::once(first).chain(orders.try_iter()).take(BATCH);
        let mut waiting = Vec::new();
        for order in batch {
            let result = match order {
                Order::Add { name, sockets } => {
                    let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
                    // systemd would remove a socket at its first hang-up (FDPOLL=1, the default).
                    let states =
                        [NotifyState::FdStore, NotifyState::FdName(&name), NotifyState::Custom("FDPOLL=0")];
                    notifier.send(&states, &fds)
                }
                Order::Remove { name, removed } => {
                    waiting.push(removed);
                    notifier.send(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)], &[])
                }
                Order::Flush(flushed) => {
                    waiting.push(flushed);
                    Ok(())
                }
            };
            match result {
                Ok(()) => has_failed = false,
                Err(error) if !has_failed => {
                    has_failed = true;
                    tracing::warn!("cannot reach the descriptor store of the service manager: {error}");
                }
                Err(_) => {}
            }
        }
        if !waiting.is_empty() {
            let done = barrier(&mut notifier).unwrap_or(false);
            for wait in waiting {
                let _ = wait.send(done);
            }
        }
    }
}

/// Waits until the service manager has processed what was sent before: it closes the descriptor of
/// the barrier then.
fn barrier(notifier: &mut impl Notifier) -> io::Result<bool> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    notifier.send(&[NotifyState::Custom("BARRIER=1")], &[write.as_fd()])?;
    drop(write);
    let mut fds = [PollFd::new(&read, PollFlags::empty())];
    let timeout = Timespec::try_from(BARRIER_TIMEOUT).map_err(|_| io::ErrorKind::InvalidInput)?;
    let ready = poll(&mut fds, Some(&timeout))?;
    Ok(ready > 0 && fds[0].revents().contains(PollFlags::HUP))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Writes down the messages, and responds to barriers if `responds`.
    struct Log {
        lines: Arc<Mutex<Vec<String>>>,
        responds: bool,
        held: Vec<OwnedFd>,
    }

    impl Notifier for Log {
        fn send(&mut self, states: &[NotifyState<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
            let states: Vec<_> = states.iter().map(ToString::to_string).collect();
            self.lines.lock().unwrap().push(format!("{} {}", states.join(" "), fds.len()));
            if !self.responds {
                self.held.extend(fds.iter().map(|fd| fd.try_clone_to_owned().unwrap()));
            }
            Ok(())
        }
    }

    fn store(responds: bool) -> (DescriptorStore, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::default();
        let log = Log { lines: Arc::clone(&lines), responds, held: Vec::new() };
        (DescriptorStore::start(log).unwrap(), lines)
    }

    #[test]
    fn the_own_value_of_systemd_precedes_that_of_the_unit() {
        let socket = ("NOTIFY_SOCKET", "/run/systemd/notify");
        for (variables, expected) in [
            (vec![socket, ("FDSTORE", "21"), ("FDSTORE_MAX", "8193")], Some(21)),
            (vec![socket, ("FDSTORE_MAX", "8193")], Some(8193)),
            (vec![socket, ("FDSTORE", "0"), ("FDSTORE_MAX", "8193")], None),
            (vec![socket, ("FDSTORE_MAX", "many")], None),
            (vec![socket], None),
            (vec![("FDSTORE", "21")], None),
        ] {
            let value = |name: &str| variables.iter().find(|(found, _)| *found == name).map(|(_, v)| v);
            assert_eq!(capacity_of(|name| value(name).map(|v| (*v).to_owned())), expected, "{variables:?}");
        }
    }

    #[test]
    fn descriptors_are_added_and_removed_in_order() {
        let (store, lines) = store(true);
        let file = || std::fs::File::open("/dev/null").unwrap().into();
        store.add("a".to_owned(), vec![file(), file()]);
        assert!(store.remove("a".to_owned()).blocking_recv().unwrap());
        assert_eq!(
            *lines.lock().unwrap(),
            ["FDSTORE=1 FDNAME=a FDPOLL=0 2", "FDSTOREREMOVE=1 FDNAME=a 0", "BARRIER=1 1"]
        );
    }

    #[test]
    fn a_manager_that_does_not_respond_is_not_waited_for_forever() {
        let (store, _) = store(false);
        assert!(!store.flush().blocking_recv().unwrap());
    }
}
