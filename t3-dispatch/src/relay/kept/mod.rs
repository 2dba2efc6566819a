//! Session state for the next process: after each read and each write the relay commits the
//! session's positions to its slot, so that the session can be continued whenever this process
//! ends.
//!
//! - Before each read it notes the direction, and reads into the shared read buffer of its thread:
//!   bytes that left the kernel are never in private memory alone.
//! - Pending bytes are copied to the slot.
//! - A heartbeat updates the checkpoint. A session that is ending also has its details written with
//!   each commit.

pub mod contents;
pub mod decide;
pub mod pick_up;
pub mod positions;
pub mod restore;

use std::{os::fd::AsFd as _, time::Duration};

use t3_record::vocabulary::Side;
use tokio::time::timeout;

use crate::{
    fd_store::{
        descriptors::DescriptorStore,
        slot::{Reading, Slot},
        state_file::StateFile,
    },
    relay::{
        Legs,
        kept::{
            contents::{Checkpoint, Details, Identity},
            positions::{MOST, Positions, index},
        },
        session::Session,
    },
    sys::tcp_counters,
};

/// Limit of the wait for the removal of sockets from the store, also when the service manager takes
/// no message.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Counts that no heartbeat has.
const NO_CHECKPOINT: (u64, u32) = (u64::MAX, u32::MAX);

/// The slot of a session, and what was written to it.
#[derive(Debug)]
pub struct Kept {
    slot: Slot,
    store: DescriptorStore,
    commit: u32,
    /// Counts of the heartbeat in the last checkpoint.
    heartbeat: (u64, u32),
    /// The slot has details, of this process or of the one before.
    has_details: bool,
    /// The sockets are no longer in the store.
    is_removed: bool,
    /// Bytes of each direction that are in the slot's place for pending bytes.
    pending: [u32; 2],
}

impl Kept {
    /// Writes a session that begins to its slot; `None` if it cannot be kept: a socket without
    /// counters (MPTCP), an identity that is too long.
    #[must_use]
    pub fn begin(slot: Slot, store: &DescriptorStore, session: &Session, legs: &Legs) -> Option<Self> {
        let baseline = baseline(session, legs)?;
        let identity = postcard::to_stdvec(&Identity::of(session, baseline)).ok()?;
        if !slot.write_identity(&identity) {
            return None;
        }
        let sockets = [&legs.down, &legs.up].map(|leg| leg.as_fd().try_clone_to_owned());
        let [Ok(down), Ok(up)] = sockets else { return None };
        let store = store.clone();
        let mut kept = Self {
            slot,
            store,
            commit: 0,
            heartbeat: NO_CHECKPOINT,
            has_details: false,
            is_removed: false,
            pending: [0; 2],
        };
        kept.write(session, false).then_some(())?;
        kept.slot.go_live();
        kept.store.add(kept.slot.name(), vec![down, up]);
        Some(kept)
    }

    /// Takes over a slot of the process before, whose last commit and lengths of pending bytes
    /// these are, and commits what changed since.
    pub(super) fn take_over(
        slot: Slot,
        store: DescriptorStore,
        session: &Session,
        commit: u32,
        pending: [u32; 2],
    ) -> Self {
        let mut kept = Self {
            slot,
            store,
            commit,
            heartbeat: NO_CHECKPOINT,
            has_details: true,
            is_removed: false,
            pending,
        };
        kept.commit(session);
        kept
    }

    /// The slot.
    #[must_use]
    pub const fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Notes that the next read is from `side`, into the shared read buffer of this thread.
    pub fn reading(&self, side: Side) {
        let buffer = StateFile::buffer_of_thread();
        self.slot.set_reading(buffer.map(|buffer| Reading { direction: index(side), buffer }));
    }

    /// Commits the state of the session. If the slot has no room for it, the session ends with this
    /// process.
    pub fn commit(&mut self, session: &Session) {
        let is_ending = session.end_started();
        let keeps_part = |side| session.flow(side).scanner.keeps_part();
        if !self.slot.is_live() {
            return;
        }
        let has_details = is_ending || keeps_part(Side::Down) || keeps_part(Side::Up);
        if !self.write(session, has_details) {
            self.slot.retire();
        }
    }

    /// The session ends with this process.
    pub fn give_up(&mut self) {
        self.slot.retire();
    }

    /// Removes the sockets from the store and frees the slot. Returns `true` once no other process
    /// has the sockets, and `false` if the service manager does not respond.
    pub async fn remove(mut self) -> bool {
        self.slot.retire();
        self.is_removed = true;
        let removed = self.store.remove(self.slot.name());
        matches!(timeout(REMOVE_TIMEOUT, removed).await, Ok(Ok(true)))
    }

    /// Commits the complete state and leaves the slot to the next process. Returns `false` if it
    /// has no room for it.
    #[must_use]
    pub fn leave(&mut self, session: &Session) -> bool {
        let is_left = self.slot.is_live() && self.write(session, true);
        if is_left {
            self.slot.leave();
        }
        is_left
    }

    fn write(&mut self, session: &Session, has_details: bool) -> bool {
        let next = self.commit.wrapping_add(1);
        if has_details {
            let details = serde_json::to_vec(&Details::of(session)).unwrap_or_default();
            if details.is_empty() || !self.slot.write_details(next, &details) {
                return false;
            }
            self.has_details = true;
        }
        for side in [Side::Down, Side::Up] {
            let (n, pending) = (index(side), &session.flow(side).pending);
            // The relay adds pending bytes only while there are none.
            let length = u32::try_from(pending.len()).unwrap_or(u32::MAX);
            if length != self.pending[n] {
                if !pending.is_empty() && !self.slot.write_pending(n, pending) {
                    return false;
                }
                self.pending[n] = length;
            }
        }
        let mut bytes = [0; MOST];
        let length = Positions::of(session, next).encode(&mut bytes);
        if !self.slot.commit(&bytes, length) {
            return false;
        }
        self.commit = next;
        if self.has_details && !has_details {
            self.has_details = false;
            self.slot.release_details();
        }
        let heartbeat = session.heartbeat.counts();
        if self.heartbeat != heartbeat {
            self.heartbeat = heartbeat;
            // Not with each commit: a slow peer leaves a part of many messages.
            if self.pending == [0, 0] {
                self.slot.release_pending();
            }
            let content = postcard::to_stdvec(&Checkpoint::of(session)).unwrap_or_default();
            self.slot.write_checkpoint(&content);
        }
        true
    }
}

/// The difference between the counters of the kernel and those of the session; `None` for a socket
/// without counters.
fn baseline(session: &Session, legs: &Legs) -> Option<[u64; 4]> {
    let (down, up) = (tcp_counters::read(&legs.down).ok()?, tcp_counters::read(&legs.up).ok()?);
    let read = |side| session.facts.leg(side).bytes;
    let written = |side| session.flow(side).written;
    Some([
        down.read.wrapping_sub(read(Side::Down)),
        up.read.wrapping_sub(read(Side::Up)),
        up.written.wrapping_sub(written(Side::Down)),
        down.written.wrapping_sub(written(Side::Up)),
    ])
}

impl Drop for Kept {
    /// A relay that did not come to its end, for example because its task panicked.
    fn drop(&mut self) {
        if !self.is_removed && !self.slot.is_left() {
            drop(self.store.remove(self.slot.name()));
        }
    }
}
