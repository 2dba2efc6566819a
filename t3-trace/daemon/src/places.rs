//! Places on the evidence socket: a user of the viewers' group cannot take those of dispatch.
//!
//! Pure: the accept loop passes the uid of each peer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::locked::lock;

/// Maximum number of connections.
pub(crate) const MAX_CONNECTIONS: usize = 256;
/// Maximum number of connections of users other than root and dispatch, in all.
const MAX_OTHERS: usize = 128;
/// The same of one of them: a few `live` and `doctor` at a time.
const MAX_PER_USER: usize = 16;
/// Maximum number of connections of dispatch: one, and those of its predecessors that have not
/// ended.
const MAX_DISPATCH: usize = 32;

/// Kind of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// root, or the user of the daemon.
    Root,
    /// The user of dispatch.
    Dispatch,
    /// Anyone else who may connect.
    Other,
}

/// Connections by uid.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    by_uid: HashMap<u32, usize>,
    others: usize,
    total: usize,
}

impl Places {
    /// Takes a place; `None` if there is none for this user.
    pub(crate) fn take(&self, uid: u32, peer: Peer) -> Option<Place> {
        let mut taken = lock(&self.0);
        let own = taken.by_uid.get(&uid).copied().unwrap_or(0);
        let is_free = match peer {
            Peer::Root => true,
            Peer::Dispatch => own < MAX_DISPATCH,
            Peer::Other => own < MAX_PER_USER && taken.others < MAX_OTHERS,
        };
        if !is_free || taken.total >= MAX_CONNECTIONS {
            return None;
        }
        *taken.by_uid.entry(uid).or_default() += 1;
        taken.others += usize::from(peer == Peer::Other);
        taken.total += 1;
        Some(Place { places: self.clone(), uid, peer })
    }
}

/// A place until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    uid: u32,
    peer: Peer,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.0);
        if let Some(own) = taken.by_uid.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                taken.by_uid.remove(&self.uid);
            }
        }
        taken.others -= usize::from(self.peer == Peer::Other);
        taken.total -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_takes_few_places_and_all_others_leave_those_of_dispatch() {
        let places = Places::default();
        let take = |uid, peer| places.take(uid, peer);
        let mut first: Vec<_> = (0..MAX_PER_USER).map(|_| take(1001, Peer::Other).unwrap()).collect();
        assert!(take(1001, Peer::Other).is_none());
        assert!(take(1002, Peer::Other).is_some(), "another user");
        let others: Vec<_> = (2000..3000).filter_map(|uid| take(uid, Peer::Other)).collect();
        assert_eq!(others.len(), MAX_OTHERS - MAX_PER_USER);
        let dispatch: Vec<_> = (0..MAX_DISPATCH).map(|_| take(991, Peer::Dispatch).unwrap()).collect();
        assert!(take(991, Peer::Dispatch).is_none());
        assert!(take(0, Peer::Root).is_some());
        first.pop();
        assert!(take(1001, Peer::Other).is_some(), "a place is given back");
        drop((first, others, dispatch));
        assert_eq!(lock(&places.0).total, 0);
        assert!(lock(&places.0).by_uid.is_empty());
    }

    #[test]
    fn there_are_never_more_than_all_places() {
        let places = Places::default();
        let mut all: Vec<_> = (0..1000).filter_map(|_| places.take(0, Peer::Root)).collect();
        assert_eq!(all.len(), MAX_CONNECTIONS);
        assert!(places.take(991, Peer::Dispatch).is_none());
        all.pop();
        assert!(places.take(991, Peer::Dispatch).is_some());
    }
}
