//! journald's native socket: sends one entry as a datagram or, if it is too long for one, as a
//! sealed memfd (systemd.io, "Native Journal Protocol").
//!
//! An error is temporary if it says something of the socket or of memory, and permanent if it says
//! something of the entry. Only a permanent one would return at every attempt.

use std::{
    io::{self, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::{Errno, retry_on_intr},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr, sendto},
};

/// The seals that journald requires: nobody can change the entry while journald reads it.
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// Why an entry was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    /// journald or memory is not available: a later attempt can succeed.
    #[error("{0}")]
    Temporary(Errno),
    /// The entry cannot be sent.
    #[error("{0}")]
    Permanent(Errno),
}

/// How the kernel may take the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Waits for room in journald's queue.
    ForRoom,
    /// Returns at once.
    Never,
}

/// A socket that sends to journald.
#[derive(Debug)]
pub(super) struct JournalSocket {
    socket: UnixDatagram,
    path: PathBuf,
    address: SocketAddrUnix,
}

impl JournalSocket {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned(), address })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sends one encoded entry.
    pub(super) fn send(&self, entry: &[u8], wait: Wait) -> Result<(), SendError> {
        let flags = match wait {
            Wait::ForRoom => SendFlags::NOSIGNAL,
            Wait::Never => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        };
        match retry_on_intr(|| sendto(&self.socket, entry, flags, &self.address)) {
            Ok(_) => Ok(()),
            // Also for ENOBUFS: the kernel may lack the contiguous memory for a long datagram.
            Err(Errno::MSGSIZE | Errno::NOBUFS) => self.send_memfd(entry, flags),
            Err(error) if is_of_the_socket(error) || is_temporary(error) => Err(SendError::Temporary(error)),
            Err(error) => Err(SendError::Permanent(error)),
        }
    }

    fn send_memfd(&self, entry: &[u8], flags: SendFlags) -> Result<(), SendError> {
        let sent = sealed(entry).and_then(|file| {
            let files = [file.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&files)) {
                return Err(Errno::INVAL);
            }
            retry_on_intr(|| sendmsg_addr(&self.socket, &self.address, &[], &mut control, flags))
        });
        match sent {
            Ok(_) => Ok(()),
            Err(error) if is_temporary(error) => Err(SendError::Temporary(error)),
            // A security module can refuse the memfd at every attempt, so a missing permission is
            // permanent here.
            Err(error) => Err(SendError::Permanent(error)),
        }
    }
}

/// A memfd with the entry that nobody can change any more.
fn sealed(entry: &[u8]) -> Result<OwnedFd, Errno> {
    const NAME: &str = "t3-record";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // vm.memfd_noexec=2 demands NOEXEC_SEAL; kernels before 6.3 do not know it.
    let file = match memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(NAME, flags)?,
        created => created?,
    };
    let mut file = std::fs::File::from(file);
    file.write_all(entry).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// Errors that pass: journald is stopped or slow, or memory or descriptors are short (sendto(2),
/// unix(7), `memfd_create(2)`).
fn is_temporary(error: Errno) -> bool {
    matches!(
        error,
        Errno::AGAIN
            | Errno::NOBUFS
            | Errno::NOMEM
            | Errno::NOENT
            | Errno::CONNREFUSED
            | Errno::CONNRESET
            | Errno::NOTCONN
            | Errno::PIPE
            | Errno::MFILE
            | Errno::NFILE
            | Errno::TOOMANYREFS
    )
}

/// Errors that every entry would get: what is at the path is not journald's socket, or does not
/// permit the sender. An operator can correct that.
fn is_of_the_socket(error: Errno) -> bool {
    matches!(
        error,
        Errno::PERM
            | Errno::ACCESS
            | Errno::PROTOTYPE
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::NOTSOCK
            | Errno::PROTONOSUPPORT
    )
}
