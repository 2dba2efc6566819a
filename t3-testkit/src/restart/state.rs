//! Stored state that a process of the same user could have changed: copies of a memfd with other
//! bytes.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    os::{fd::OwnedFd, unix::fs::FileExt as _},
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

use crate::error::{Attempt, Result};

/// All bytes of a stored file, and its seals.
///
/// # Errors
/// It cannot be read, or has no seals.
pub fn copy(stored: OwnedFd) -> Result<(Vec<u8>, SealFlags)> {
    let what = || "read the stored state".to_owned();
    let seals = fcntl_get_seals(&stored).attempt(what)?;
    let mut file = File::from(stored);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).attempt(what)?;
    file.read_to_end(&mut bytes).attempt(what)?;
    Ok((bytes, seals))
}

/// A memfd with these bytes and seals.
///
/// # Errors
/// As memfd_create(2) and fcntl(2).
pub fn file(bytes: &[u8], seals: SealFlags) -> Result<OwnedFd> {
    let what = || "make a memfd".to_owned();
    let memfd = memfd_create("t3-state", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).attempt(what)?;
    let file = File::from(memfd);
    file.write_all_at(bytes, 0).attempt(what)?;
    let memfd = OwnedFd::from(file);
    fcntl_add_seals(&memfd, seals).attempt(what)?;
    Ok(memfd)
}

/// The bytes with one of them changed.
#[must_use]
pub fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte = !*byte;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_bytes_and_the_seals() {
        let seals = SealFlags::SHRINK | SealFlags::GROW;
        let original = file(b"state", seals).unwrap();
        assert_eq!(copy(original.try_clone().unwrap()).unwrap(), (b"state".to_vec(), seals));
        // Also if somebody has moved the common offset.
        assert_eq!(copy(original).unwrap().0, b"state");
        assert_eq!(flipped(b"ab", 1), [b'a', !b'b']);
        assert_eq!(flipped(b"ab", 2), b"ab");
    }
}
