//! Descriptors of a service between two of its processes, in the order in which systemd passes
//! them.
//!
//! systemd (src/core/service.c, `service_add_fd_store`) puts each new descriptor before all others,
//! and takes those of one message from an unordered set: a service can rely on no order.

use std::{
    collections::HashSet,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::fs::fstat;

use crate::chaos::plan::Rng;

/// Counters of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Descriptors that were stored.
    pub stored: u64,
    /// Descriptors that a message removed.
    pub removed: u64,
    /// Descriptors that were closed because the store was full.
    pub dropped: u64,
    /// Descriptors that were in the store already.
    pub duplicates: u64,
    /// Descriptors that systemd would close on a hang-up, for lack of `FDPOLL=0`.
    pub polled: u64,
    /// Removals of a name that is not in the store.
    pub unknown: u64,
    /// Messages of another process, and truncated ones.
    pub refused: u64,
}

/// A stored descriptor.
#[derive(Debug)]
struct Stored {
    name: String,
    /// Device and inode: equal for two descriptors of one file or socket.
    identity: (u64, u64),
    fd: OwnedFd,
}

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    /// `FileDescriptorStoreMax=`.
    max: usize,
    /// Oldest first.
    entries: Vec<Stored>,
    identities: HashSet<(u64, u64)>,
    rng: Rng,
    pub counts: Counts,
}

impl Store {
    pub(super) fn new(max: usize, seed: u64) -> Self {
        let (entries, identities) = (Vec::new(), HashSet::new());
        Self { max, entries, identities, rng: Rng(seed), counts: Counts::default() }
    }

    /// Stores the descriptors of one message, and closes those above the maximum.
    pub(super) fn add(&mut self, name: &str, is_polled: bool, mut fds: Vec<OwnedFd>) {
        // Not in their order: see above.
        for last in (1..fds.len()).rev() {
            let other = usize::try_from(self.rng.below(last as u64 + 1)).unwrap_or(last);
            fds.swap(last, other);
        }
        for fd in fds {
            if self.entries.len() >= self.max {
                self.counts.dropped += 1;
                continue;
            }
            let Ok(identity) = identity(&fd) else {
                self.counts.refused += 1;
                continue;
            };
            if !self.identities.insert(identity) {
                self.counts.duplicates += 1;
                continue;
            }
            self.counts.stored += 1;
            self.counts.polled += u64::from(is_polled);
            self.entries.push(Stored { name: name.to_owned(), identity, fd });
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        let before = self.entries.len();
        let identities = &mut self.identities;
        self.entries.retain(|stored| {
            let stays = stored.name != name;
            if !stays {
                identities.remove(&stored.identity);
            }
            stays
        });
        let removed = before - self.entries.len();
        self.counts.removed += removed as u64;
        self.counts.unknown += u64::from(removed == 0);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.identities.clear();
    }

    /// Name and descriptor of each entry, newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.entries.iter().rev().map(|stored| (stored.name.as_str(), stored.fd.as_fd()))
    }

    /// Replaces all descriptors of a name by this one.
    pub(super) fn replace(&mut self, name: &str, fd: OwnedFd) {
        let counts = self.counts;
        self.remove(name);
        self.counts = counts;
        if let Ok(identity) = identity(&fd) {
            self.identities.insert(identity);
            self.entries.push(Stored { name: name.to_owned(), identity, fd });
        }
    }
}

fn identity(fd: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> Vec<OwnedFd> {
        let (one, other) = UnixStream::pair().unwrap();
        vec![one.into(), other.into()]
    }

    fn names(store: &Store) -> Vec<&str> {
        store.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn the_newest_is_first_and_the_maximum_can_split_a_message() {
        let mut store = Store::new(3, 1);
        store.add("a", false, pair());
        store.add("b", true, pair());
        assert_eq!(names(&store), ["b", "a", "a"]);
        let expected = Counts { stored: 3, dropped: 1, polled: 1, ..Counts::default() };
        assert_eq!(store.counts, expected);
        store.remove("a");
        store.remove("a");
        assert_eq!(names(&store), ["b"]);
        assert_eq!(store.counts, Counts { removed: 2, unknown: 1, ..expected });
    }

    #[test]
    fn the_descriptors_of_a_message_have_no_order() {
        let (mut kept, mut swapped) = (0, 0);
        let mut store = Store::new(1000, 7);
        for number in 0..100 {
            let fds = pair();
            let first = identity(&fds[0]).unwrap();
            store.add(&number.to_string(), false, fds);
            let (_, newest) = store.iter().next().unwrap();
            let newest = identity(&newest.try_clone_to_owned().unwrap()).unwrap();
            if newest == first { swapped += 1 } else { kept += 1 }
        }
        assert!(kept > 20 && swapped > 20, "{kept} {swapped}");
    }

    #[test]
    fn a_descriptor_is_stored_once_until_its_removal() {
        let mut store = Store::new(10, 1);
        let (one, _other) = UnixStream::pair().unwrap();
        for _ in 0..2 {
            store.add("a", false, vec![one.try_clone().unwrap().into()]);
        }
        assert_eq!((store.counts.stored, store.counts.duplicates), (1, 1));
        store.remove("a");
        store.add("b", false, vec![one.into()]);
        assert_eq!((names(&store), store.counts.stored), (vec!["b"], 2));
    }

    #[test]
    fn a_replaced_descriptor_does_not_count() {
        let mut store = Store::new(1, 1);
        store.add("state", false, vec![pair().remove(0)]);
        let counts = store.counts;
        store.replace("state", pair().remove(0));
        assert_eq!((names(&store), store.counts), (vec!["state"], counts));
    }
}
