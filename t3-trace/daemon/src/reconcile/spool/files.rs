//! Log files of the spool on disk: lock, preallocation, reads and writes.

use std::{
    fs::{DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock, open},
    io::{Errno, retry_on_intr},
};

use super::SpoolError;

/// Names of the two files. The first one carries the lock.
pub(super) const NAMES: [&str; 2] = ["spool-a", "spool-b"];
/// Smallest file worth having.
const SMALLEST: u64 = 4096;

/// Result of a preallocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// Writes below this length need no more space.
    Reserved,
    /// The file system cannot preallocate.
    Unsupported,
    /// Disk, quota or the process's file size limit is exceeded.
    NoSpace,
}

/// The operations on a log file; tests inject faults here.
pub trait LogFile {
    fn size(&self) -> io::Result<u64>;
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    fn allocate(&mut self, len: u64) -> io::Result<Allocation>;
    /// Reads up to the end of the buffer or of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Hands the bytes to the kernel. After an error any part of them may be written.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when everything written is on disk.
    fn sync(&mut self) -> io::Result<()>;
}

impl LogFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn allocate(&mut self, len: u64) -> io::Result<Allocation> {
        match retry_on_intr(|| fallocate(&*self, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(Allocation::Reserved),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Allocation::Unsupported),
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Ok(Allocation::NoSpace),
            Err(error) => Err(error.into()),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match FileExt::read_at(self, &mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Opens or creates both files and takes the lock.
pub(super) fn open_both(dir: &Path) -> Result<[File; 2], SpoolError> {
    let failed = |path: PathBuf| move |source| SpoolError::Open { path, source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir.into()))?;
    let [first, second] = NAMES.map(|name| dir.join(name));
    let a = open_file(&first).map_err(failed(first.clone()))?;
    match flock(&a, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(SpoolError::InUse { path: first }),
        Err(error) => return Err(failed(first)(error.into())),
    }
    let b = open_file(&second).map_err(failed(second))?;
    // Otherwise a power loss could remove new files with their synced content.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir.into()))?;
    Ok([a, b])
}

fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(File::from(open(path, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Gives both files the same size, `wanted` or as much as there is space for, and returns it.
/// Nothing before `kept` is cut off.
pub(super) fn allocate_both<F: LogFile>(files: &mut [F; 2], wanted: u64, kept: [u64; 2]) -> io::Result<u64> {
    let mut size = wanted;
    while size >= SMALLEST {
        cut(files, size, kept)?;
        if !matches!(allocate(files, size)?, Allocation::NoSpace) {
            return Ok(size);
        }
        size = if size > SMALLEST { (size / 8 * 7).max(SMALLEST) } else { 0 };
    }
    cut(files, 0, kept)?;
    Ok(0)
}

/// Allocates this size for both. The result is the worse one.
fn allocate<F: LogFile>(files: &mut [F; 2], size: u64) -> io::Result<Allocation> {
    for file in files {
        match file.allocate(size)? {
            Allocation::Reserved => {}
            other => return Ok(other),
        }
    }
    Ok(Allocation::Reserved)
}

/// Gives back the space after `size`.
fn cut<F: LogFile>(files: &mut [F; 2], size: u64, kept: [u64; 2]) -> io::Result<()> {
    for (file, kept) in files.iter_mut().zip(kept) {
        // Also without a change: a preallocation that failed may have left space after the end.
        file.set_len(file.size()?.min(size.max(kept)))?;
    }
    Ok(())
}
