//! The memory of all sessions: creation, check at the start of the next process, and the slots that
//! are free.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::{
    fd_store::layout::{BUFFER, BUFFERS, HEADER, Layout, MAGIC, VERSION, slot::LIVE},
    sys::shared_memory::{self, SharedMemory, SharedMemoryError},
};

/// Why the memory of the previous process cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// Not such memory, or it can be truncated.
    #[error(transparent)]
    Memory(#[from] SharedMemoryError),
    /// Too short for a header, or with another beginning.
    #[error("it is not the state of a t3-dispatch")]
    Foreign,
    /// Written by another version.
    #[error("it has version {0}, and this t3-dispatch reads version {VERSION}")]
    Version(u32),
    /// A number of slots that no t3-dispatch writes.
    #[error("it has {0} slots")]
    Slots(u32),
}

impl From<io::Error> for StateFileError {
    fn from(error: io::Error) -> Self {
        Self::Memory(error.into())
    }
}

/// The memory of all sessions.
#[derive(Debug)]
pub struct StateFile {
    memory: SharedMemory,
    layout: Layout,
    /// Lowest last: memory is used from its beginning.
    free: Mutex<Vec<u32>>,
    /// All sessions are left to the next process.
    is_left: AtomicBool,
    is_handed_over: AtomicBool,
}

/// Offsets of the times in the header.
const ALIVE: usize = 16;
const EXISTS: usize = 24;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Number of this thread among those that relay; its read buffer belongs to it alone.
    static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

impl StateFile {
    /// Creates memory for a number of sessions.
    ///
    /// # Errors
    /// As [`SharedMemory::create`]; [`io::ErrorKind::InvalidInput`] for too many sessions.
    pub fn create(slots: u32) -> io::Result<Arc<Self>> {
        let layout = Layout::new(slots).ok_or(io::ErrorKind::InvalidInput)?;
        let memory = SharedMemory::create(layout.total())?;
        memory.write(8, &VERSION.to_ne_bytes());
        memory.write(12, &slots.to_ne_bytes());
        memory.write(0, &MAGIC);
        Ok(Arc::new(Self {
            memory,
            layout,
            free: Mutex::new((0..slots).rev().collect()),
            is_left: AtomicBool::default(),
            is_handed_over: AtomicBool::default(),
        }))
    }

    /// Opens the memory of the previous process. Its live slots are taken.
    ///
    /// # Errors
    /// [`StateFileError`].
    pub fn open(fd: OwnedFd) -> Result<Arc<Self>, StateFileError> {
        let length = usize::try_from(shared_memory::length_of(&fd)?).unwrap_or(usize::MAX);
        if length < HEADER {
            return Err(StateFileError::Foreign);
        }
        let memory = SharedMemory::open(fd, length)?;
        if memory.array(0) != MAGIC {
            return Err(StateFileError::Foreign);
        }
        let version = u32::from_ne_bytes(memory.array(8));
        if version != VERSION {
            return Err(StateFileError::Version(version));
        }
        let slots = u32::from_ne_bytes(memory.array(12));
        let layout = Layout::new(slots).filter(|layout| layout.total() == memory.len());
        let layout = layout.ok_or(StateFileError::Slots(slots))?;
        let free = (0..slots).rev().filter(|slot| memory.load(layout.slot(*slot)) != LIVE).collect();
        Ok(Arc::new(Self {
            memory,
            layout,
            free: Mutex::new(free),
            is_left: AtomicBool::default(),
            is_handed_over: AtomicBool::default(),
        }))
    }

    /// The slots of sessions of the previous process.
    pub(super) fn live(&self) -> impl Iterator<Item = u32> {
        (0..self.layout.slots()).filter(|slot| self.memory.load(self.layout.slot(*slot)) == LIVE)
    }

    /// Takes a free slot; `None` if there is none.
    pub(super) fn take(&self) -> Option<u32> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Number of slots in use.
    #[must_use]
    pub fn taken(&self) -> usize {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).len();
        (self.layout.slots() as usize).saturating_sub(free)
    }

    /// Returns a slot.
    pub(super) fn free(&self, slot: u32) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }

    /// Leaves all slots to the next process, whatever is dropped from now on.
    pub fn leave(&self) {
        self.is_left.store(true, Ordering::Release);
    }

    /// See [`StateFile::leave`].
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Acquire)
    }

    /// Notes that the process relays. `now`: nanoseconds of `CLOCK_MONOTONIC`. Without effect after
    /// [`StateFile::set_handed_over`].
    pub fn set_alive(&self, now: u64) {
        if !self.is_handed_over.load(Ordering::Acquire) {
            self.memory.write(ALIVE, &now.to_ne_bytes());
        }
    }

    /// As [`StateFile::set_alive`], for a process that may not relay: its runtime is blocked.
    pub fn set_exists(&self, now: u64) {
        if !self.is_handed_over.load(Ordering::Acquire) {
            self.memory.write(EXISTS, &now.to_ne_bytes());
        }
    }

    /// Notes that the process no longer relays sessions.
    pub fn set_handed_over(&self, now: u64) {
        self.set_alive(now);
        self.set_exists(now);
        self.is_handed_over.store(true, Ordering::Release);
    }

    /// Last time at which a process noted that it relays; `None` for new memory.
    #[must_use]
    pub fn alive(&self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.memory.array(ALIVE))).filter(|at| *at > 0)
    }

    /// Last time at which a process noted that it exists; `None` for new memory.
    #[must_use]
    pub fn existed(&self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.memory.array(EXISTS))).filter(|at| *at > 0)
    }

    /// Number of slots.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.layout.slots()
    }

    /// The memfd.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    /// Number of this thread's read buffer; `None` if there are more threads than buffers.
    #[must_use]
    pub fn buffer_of_thread() -> Option<usize> {
        let thread = THREAD.with(|thread| *thread);
        (thread < BUFFERS).then_some(thread)
    }

    /// The read buffer of this thread; `None` if there are more threads than buffers.
    ///
    /// # Safety
    /// The thread must not have another reference to it.
    #[expect(unsafe_code, clippy::mut_from_ref, reason = "each thread has its own")]
    pub unsafe fn read_buffer(&self) -> Option<&mut [u8]> {
        let offset = self.layout.buffer(Self::buffer_of_thread()?);
        // SAFETY: no other thread uses this buffer, and this one has no other reference.
        unsafe { self.memory.bytes(offset, BUFFER) }
    }

    pub(super) const fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    pub(super) const fn layout(&self) -> Layout {
        self.layout
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::ftruncate;

    use super::*;

    fn copy(file: &StateFile) -> OwnedFd {
        file.fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn memory_of_another_program_or_version_is_refused() {
        let refused = |change: &dyn Fn(&StateFile)| {
            let file = StateFile::create(2).unwrap();
            change(&file);
            StateFile::open(copy(&file)).unwrap_err().to_string()
        };
        let write = |at: usize, bytes: &'static [u8]| move |file: &StateFile| file.memory.write(at, bytes);
        assert_eq!(refused(&write(0, b"x")), "it is not the state of a t3-dispatch");
        assert_eq!(
            refused(&write(8, &[9, 0, 0, 0])),
            "it has version 9, and this t3-dispatch reads version 2"
        );
        assert_eq!(refused(&write(12, &[0xff; 4])), "it has 4294967295 slots");
        assert_eq!(refused(&write(12, &[3, 0, 0, 0])), "it has 3 slots");
        let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 100).unwrap();
        assert!(matches!(StateFile::open(file), Err(StateFileError::Foreign)));
    }
}
