//! Readiness of a descriptor in the event loop. The only `unsafe` outside of system calls: tokio
//! cannot check by type that a descriptor stays open while it is registered.
#![expect(
    unsafe_code,
    reason = "registering a descriptor with tokio is unsafe; OwnedFd meets its requirement"
)]

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a duplicate of a descriptor for reading; the duplicate refers to the same open file.
///
/// # Errors
/// No descriptor is left, or the file cannot be polled.
pub fn readable(fd: impl AsFd) -> io::Result<AsyncFd<OwnedFd>> {
    let owned = fd.as_fd().try_clone_to_owned()?;
    // SAFETY: an OwnedFd is open until it is dropped and always returns the same number; the
    // AsyncFd owns it.
    unsafe { AsyncFd::register_with_interest(owned, Interest::READABLE) }.map_err(io::Error::from)
}
