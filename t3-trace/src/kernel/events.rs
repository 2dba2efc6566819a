//! The ring of events as a pollable descriptor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::Event;

/// The reading end of the ring. Readable (level-triggered while not empty) when events wait.
#[derive(Debug)]
pub struct Events {
    fd: OwnedFd,
}

impl Events {
    /// The next waiting event; `None` when there is none now. Never waits.
    pub fn next_event(&mut self) -> Option<Event> {
        None
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
