//! Rings of the kernel side as pollable descriptors.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use aya::maps::{MapData, RingBuf};

use super::{ClosedConnection, Event, decode};

/// Reading end of the event ring: readable while events are pending.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Returns the next pending event; never waits.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if let Some(event) = decode::event(&item) {
                return Some(event);
            }
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("fd", &self.as_raw_fd()).finish()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

/// Reading end of the ring of closed connections.
pub struct Connections {
    ring: RingBuf<MapData>,
    reasons: BTreeMap<u32, String>,
    has_counters: bool,
}

impl Connections {
    pub(super) fn new(ring: RingBuf<MapData>, reasons: BTreeMap<u32, String>, has_counters: bool) -> Self {
        Self { ring, reasons, has_counters }
    }

    /// Returns the next closed connection; never waits.
    pub fn next_connection(&mut self) -> Option<ClosedConnection> {
        loop {
            let item = self.ring.next()?;
            if let Some(connection) = decode::connection(&item, &self.reasons, self.has_counters) {
                return Some(connection);
            }
        }
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl AsFd for Connections {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
