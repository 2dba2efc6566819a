//! The read buffer of a thread: shared memory if the session is kept for the next process, else
//! private.
#![expect(unsafe_code, reason = "the read buffer is in mapped memory")]

use std::sync::Arc;

use crate::fd_store::{layout::BUFFER, state_file::StateFile};

/// Bytes per read. Less than a packet of the loopback (65,483 bytes of data), and 45 packets of an
/// Ethernet: a write of 64 KiB would be a full packet and a short one, each with its
/// acknowledgement.
const READ: usize = 65_160;
const _: () = assert!(READ <= BUFFER);

/// The read buffers of one thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Allocated at the first use.
    private: Vec<u8>,
    shared: Option<Arc<StateFile>>,
}

impl Scratch {
    /// The buffer for a session whose state is in `file`.
    pub(super) fn buffer(&mut self, file: Option<&Arc<StateFile>>) -> &mut [u8] {
        if let Some(file) = file {
            if !self.shared.as_ref().is_some_and(|shared| Arc::ptr_eq(shared, file)) {
                self.shared = Some(Arc::clone(file));
            }
            if let Some(shared) = &self.shared {
                // SAFETY: the buffer of this thread is used only through the thread's `Scratch`,
                // which is borrowed as long as the result.
                if let Some(buffer) = unsafe { shared.read_buffer() } {
                    return &mut buffer[..READ];
                }
            }
        }
        if self.private.is_empty() {
            self.private = vec![0; READ];
        }
        &mut self.private
    }
}
