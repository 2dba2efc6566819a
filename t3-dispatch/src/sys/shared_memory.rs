//! Memory in a memfd, which outlives the process while another process holds the descriptor
//! (memfd_create(2)).
//!
//! Any process with the descriptor can change the content at any time, so each value is copied out
//! before it is checked. The size is sealed: a file that can be truncated would end the process
//! with SIGBUS.
#![expect(unsafe_code, reason = "mapped memory")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    fs::{
        FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate,
        memfd_create,
    },
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

/// Name of the memfd in `/proc/PID/fd`.
const NAME: &str = "t3-dispatch-state";
/// The size cannot change, and neither can the seals.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Why a descriptor is not usable as shared memory.
#[derive(Debug, thiserror::Error)]
pub enum SharedMemoryError {
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The size can change.
    #[error("its size is not sealed")]
    Unsealed,
    /// Another size than expected.
    #[error("it has {actual} bytes instead of {expected}")]
    Size {
        /// Bytes of the file.
        actual: u64,
        /// Bytes expected.
        expected: u64,
    },
}

/// A mapped memfd.
#[derive(Debug)]
pub struct SharedMemory {
    fd: OwnedFd,
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is valid in all threads until the drop; access is by atomics and by copies of
// parts that only their owner uses.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Creates memory of `length` zero bytes.
    ///
    /// # Errors
    /// As `memfd_create`, `ftruncate`, `fcntl` and `mmap`.
    pub fn create(length: usize) -> io::Result<Self> {
        let fd = memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, length as u64)?;
        fcntl_add_seals(&fd, SEALS)?;
        Self::map(fd, length)
    }

    /// Maps a memfd that another process created.
    ///
    /// # Errors
    /// [`SharedMemoryError`].
    pub fn open(fd: OwnedFd, length: usize) -> Result<Self, SharedMemoryError> {
        let seals = fcntl_get_seals(&fd).map_err(io::Error::from)?;
        if !seals.contains(SEALS) {
            return Err(SharedMemoryError::Unsealed);
        }
        let actual = length_of(&fd)?;
        if actual != length as u64 {
            return Err(SharedMemoryError::Size { actual, expected: length as u64 });
        }
        Ok(Self::map(fd, length)?)
    }

    fn map(fd: OwnedFd, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { fd, base, length })
    }

    /// The length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether the length is zero.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The memfd.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Address of `length` bytes at `offset`; `None` outside the memory.
    fn at(&self, offset: usize, length: usize) -> Option<*mut u8> {
        let end = offset.checked_add(length)?;
        // SAFETY: the offset is within the mapping.
        (end <= self.length).then(|| unsafe { self.base.as_ptr().add(offset) })
    }

    /// Copies bytes out; outside the memory they stay as they are.
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        if let Some(from) = self.at(offset, to.len()) {
            // SAFETY: both are valid for the length, and a mapping is not a Rust object.
            unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        }
    }

    /// Copies an array out; zeros outside the memory.
    #[must_use]
    pub fn array<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes);
        bytes
    }

    /// Copies bytes in; outside the memory nothing happens.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        if let Some(to) = self.at(offset, bytes.len()) {
            // SAFETY: as for `read`.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        }
    }

    /// As [`SharedMemory::write`], with a length that the compiler knows: it copies without a call,
    /// and memcpy of musl costs 20 ns or more for a few bytes.
    pub fn write_array<const N: usize>(&self, offset: usize, bytes: &[u8; N]) {
        if let Some(to) = self.at(offset, N) {
            // SAFETY: as for `write`.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, N) };
        }
    }

    fn word(&self, offset: usize) -> Option<&AtomicU32> {
        let at = self.at(offset, size_of::<u32>()).filter(|_| offset.is_multiple_of(size_of::<u32>()))?;
        // SAFETY: aligned (the mapping begins at a page) and valid as long as `self`.
        Some(unsafe { AtomicU32::from_ptr(at.cast()) })
    }

    /// Reads an aligned word; 0 outside the memory. What was written before the word is visible
    /// afterwards.
    #[must_use]
    pub fn load(&self, offset: usize) -> u32 {
        self.word(offset).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Writes an aligned word after all that was written before: also for a process that is killed
    /// in between, because a CPU completes its own writes in their order.
    pub fn store(&self, offset: usize, value: u32) {
        if let Some(word) = self.word(offset) {
            word.store(value, Ordering::Release);
        }
    }

    /// Bytes into which a read can go directly.
    ///
    /// # Safety
    /// No other reference to any of these bytes may exist during the lifetime of the result.
    #[expect(clippy::mut_from_ref, reason = "the caller is the only user of these bytes")]
    pub unsafe fn bytes(&self, offset: usize, length: usize) -> Option<&mut [u8]> {
        // SAFETY: valid for the length, and exclusive by the contract of this function.
        self.at(offset, length).map(|at| unsafe { std::slice::from_raw_parts_mut(at, length) })
    }

    /// Gives whole pages back to the kernel; they read as zeros afterwards.
    pub fn release(&self, offset: usize, length: usize) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Without it the memory stays in use.
        let _ = fallocate(&self.fd, flags, offset as u64, length as u64);
    }
}

/// The length of a file in bytes.
///
/// # Errors
/// As `fstat`.
pub fn length_of(fd: &OwnedFd) -> io::Result<u64> {
    Ok(u64::try_from(fstat(fd)?.st_size).unwrap_or(0))
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and no reference outlives `self`.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_mapping_of_the_file_has_the_content() {
        let first = SharedMemory::create(8192).unwrap();
        first.write(4096, b"state");
        first.store(8, 7);
        let second = SharedMemory::open(first.fd().try_clone_to_owned().unwrap(), 8192).unwrap();
        drop(first);
        assert_eq!((&second.array::<5>(4096), second.load(8)), (b"state", 7));
        second.release(4096, 4096);
        assert_eq!(second.array::<5>(4096), [0; 5]);
    }

    #[test]
    fn access_outside_the_memory_has_no_effect() {
        let memory = SharedMemory::create(4096).unwrap();
        memory.write(4095, b"ab");
        memory.store(4096, 1);
        memory.store(2, 1);
        assert_eq!((memory.array::<2>(4095), memory.load(usize::MAX - 3), memory.load(0)), ([0; 2], 0, 0));
    }

    #[test]
    fn a_file_whose_size_can_change_is_refused() {
        let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, 4096).unwrap();
        let opened = SharedMemory::open(fd.try_clone().unwrap(), 4096);
        assert!(matches!(opened, Err(SharedMemoryError::Unsealed)), "{opened:?}");
        fcntl_add_seals(&fd, SEALS).unwrap();
        let opened = SharedMemory::open(fd, 8192);
        assert!(matches!(opened, Err(SharedMemoryError::Size { actual: 4096, .. })), "{opened:?}");
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(matches!(SharedMemory::open(file.into(), 4096), Err(SharedMemoryError::Io(_))));
    }
}
