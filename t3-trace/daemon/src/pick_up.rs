//! Whether the successor of an ended dispatch may still continue its kept sessions. Pure.
//!
//! The end of a dispatch that keeps its sessions in a descriptor store does not end them: its
//! successor registers those that it continues, and reports with `PickedUp` that these are all. A
//! record in between would be a second one, and wrong; a session without a successor needs its
//! record. So each ended dispatch is *awaited* until
//!
//! - a successor has picked up: a later connection of another process on one of its ports;
//! - or no successor is connected for [`SUCCESSOR_TIMEOUT`]: one that is connected still registers,
//!   and the end of one that had not finished restarts the time;
//! - or [`MAX_WAIT`] has passed, whatever its successors do.
//!
//! Of a dispatch that ended without a connection, the end is the time at which it was first found
//! ended, and only the times decide: its ports are not known, so the successor may be that of
//! another dispatch on this host.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
};

use t3_record::{evidence::Nanos, wire};
use t3_trace_host::clock::SECOND;

use crate::sessions::ConnectionId;

/// Time for a successor to connect.
pub(crate) const SUCCESSOR_TIMEOUT: Nanos = wire::SUCCESSOR_WAIT.as_secs() * SECOND;
/// Limit in all: bounds the delay of the records if each successor ends before it has finished, or
/// if it is of a version that does not report `PickedUp`.
pub(crate) const MAX_WAIT: Nanos = 60 * SECOND;
/// Time after which the end of a dispatch without connection is forgotten: its sessions have their
/// records.
const FORGET: Nanos = 10 * MAX_WAIT;

/// Limit of ports of a dispatch that are compared with those of its successor.
const MAX_PORTS: usize = 256;
/// Limit of ended sessions that were not registered: as many as dispatch can have open, twice. A
/// dispatch that was taken over must not fill the memory.
const MAX_ENDED: usize = 20_000;

/// A connection of dispatch, until the records of its sessions are settled.
#[derive(Debug, Default)]
struct Dispatch {
    pid: Option<u32>,
    listen: Vec<u16>,
    is_connected: bool,
    has_picked_up: bool,
    /// A successor has picked up.
    is_succeeded: bool,
    wait: Wait,
}

impl Dispatch {
    /// Whether this later connection may be of the successor of `other`. Ports are unknown before
    /// the first `Watch`.
    fn may_succeed(&self, other: &Self) -> bool {
        let is_same_process = self.pid.is_some() && self.pid == other.pid;
        let is_same_service = self.listen.is_empty()
            || other.listen.is_empty()
            || self.listen.iter().any(|port| other.listen.contains(port));
        !is_same_process && is_same_service
    }

    /// Connected, and it may still register sessions of its predecessor.
    fn is_registering(&self) -> bool {
        self.is_connected && !self.has_picked_up
    }
}

/// Times of one wait.
#[derive(Debug, Clone, Copy, Default)]
struct Wait {
    /// End of the dispatch; `None` while it runs.
    ended_at: Option<Nanos>,
    /// Time at which a successor ended that had not finished; 0 without one.
    restarted_at: Nanos,
}

impl Wait {
    fn is_over(self, is_registering: bool, now: Nanos) -> bool {
        let Some(ended_at) = self.ended_at else { return false };
        let without_successor = now.saturating_sub(ended_at.max(self.restarted_at));
        now.saturating_sub(ended_at) >= MAX_WAIT || !is_registering && without_successor >= SUCCESSOR_TIMEOUT
    }
}

/// Dispatches with sessions that a successor may continue.
#[derive(Debug, Default)]
pub(crate) struct PickUps {
    dispatches: BTreeMap<ConnectionId, Dispatch>,
    /// Dispatches that ended without a connection, by pid.
    unconnected: HashMap<u32, Wait>,
    /// Sessions of `PickedUp` that were not registered, and the dispatch that writes their record.
    ended: HashMap<String, ConnectionId>,
}

impl PickUps {
    /// A dispatch has connected.
    pub(crate) fn connected(&mut self, id: ConnectionId, pid: Option<u32>) {
        self.dispatches.insert(id, Dispatch { pid, is_connected: true, ..Dispatch::default() });
    }

    /// A dispatch watches these ports of its own.
    pub(crate) fn listens(&mut self, id: ConnectionId, listen: &[u16]) {
        if let Some(dispatch) = self.dispatches.get_mut(&id) {
            listen[..listen.len().min(MAX_PORTS)].clone_into(&mut dispatch.listen);
        }
    }

    /// A dispatch has registered all sessions that it continues.
    pub(crate) fn picked_up(&mut self, id: ConnectionId) {
        let Some(mut successor) = self.dispatches.remove(&id) else { return };
        successor.has_picked_up = true;
        for (_, dispatch) in self.dispatches.range_mut(..id) {
            dispatch.is_succeeded |= successor.may_succeed(dispatch);
        }
        self.dispatches.insert(id, successor);
    }

    /// A session that is not registered, and whose record this dispatch writes.
    pub(crate) fn add_ended(&mut self, conn: String, id: ConnectionId) {
        if self.ended.len() < MAX_ENDED {
            self.ended.insert(conn, id);
        }
    }

    /// dispatch has reported the record of a session.
    pub(crate) fn done(&mut self, conn: &str) {
        self.ended.remove(conn);
    }

    /// Whether a connected dispatch writes the record of this session, which it has not registered.
    pub(crate) fn is_ended(&self, conn: &str) -> bool {
        self.ended.contains_key(conn)
    }

    /// A connection of dispatch has ended; the process may run on.
    pub(crate) fn disconnected(&mut self, id: ConnectionId, now: Nanos) {
        self.ended.retain(|_, writer| *writer != id);
        let Some(mut gone) = self.dispatches.remove(&id) else { return };
        if mem::take(&mut gone.is_connected) && !gone.has_picked_up {
            for (_, dispatch) in self.dispatches.range_mut(..id) {
                if gone.may_succeed(dispatch) {
                    dispatch.wait.restarted_at = now;
                }
            }
            for (_, wait) in self.unconnected.iter_mut().filter(|(pid, _)| gone.pid != Some(**pid)) {
                wait.restarted_at = now;
            }
        }
        self.dispatches.insert(id, gone);
    }

    /// The process of an ended connection has exited.
    pub(crate) fn exited(&mut self, id: ConnectionId, now: Nanos) {
        if let Some(dispatch) = self.dispatches.get_mut(&id) {
            dispatch.wait.ended_at.get_or_insert(now);
        }
    }

    /// Whether kept sessions of this connection wait for a successor of their dispatch.
    pub(crate) fn is_awaited(&self, id: ConnectionId, now: Nanos) -> bool {
        let Some(dispatch) = self.dispatches.get(&id) else { return false };
        let mut later = self.dispatches.range(id..).filter(|(other, _)| **other != id);
        let is_registering = later.any(|(_, other)| other.is_registering() && other.may_succeed(dispatch));
        !dispatch.is_succeeded && !dispatch.wait.is_over(is_registering, now)
    }

    /// The same for sessions that are not registered, of an ended dispatch with this pid.
    pub(crate) fn is_pid_awaited(&mut self, pid: u32, now: Nanos) -> bool {
        let is_recent = |wait: &Wait| wait.ended_at.is_some_and(|ended| now.saturating_sub(ended) < FORGET);
        self.unconnected.retain(|_, wait| is_recent(wait));
        let wait = self.unconnected.entry(pid).or_default();
        wait.ended_at.get_or_insert(now);
        let mut others = self.dispatches.values().filter(|dispatch| dispatch.pid != Some(pid));
        !wait.is_over(others.any(Dispatch::is_registering), now)
    }

    /// No session of this connection waits any more.
    pub(crate) fn settled(&mut self, id: ConnectionId) {
        self.dispatches.remove(&id);
    }
}

#[cfg(test)]
mod tests;
