//! State of the sessions outside this process, for the next one (docs/ARCHITECTURE.md).
//!
//! systemd's file descriptor store (systemd.service(5), `FileDescriptorStoreMax=`) keeps both
//! sockets of each session and one memfd with a slot per session. Whatever ends this process, its
//! successor gets all of them at its start.
//!
//! This module handles descriptors and bytes. What the bytes of a slot mean is known to
//! [`crate::relay`].

pub mod descriptors;
pub mod layout;
pub mod slot;
pub mod state_file;

use std::sync::Arc;

use crate::fd_store::{descriptors::DescriptorStore, slot::Slot, state_file::StateFile};

/// Memory and descriptors of all sessions that the next process can continue.
#[derive(Debug, Clone)]
pub struct Store {
    /// The memory.
    pub file: Arc<StateFile>,
    /// The service manager.
    pub descriptors: DescriptorStore,
}

impl Store {
    /// Takes a free slot; `None` if there is none.
    #[must_use]
    pub fn take(&self) -> Option<Slot> {
        Slot::take(&self.file)
    }
}
