//! Connection to a Unix socket of packets whose accept queue may be full.
//!
//! A connect that does not wait fails then (`EAGAIN`, which `UnixSeqpacket::connect` takes for
//! success), and one that is repeated may find the queue full each time, while others wait for it:
//! the kernel wakes those in the order of their arrival (net/unix/af_unix.c, `unix_wait_for_peer`).
//! So this one waits as well, on a thread of its own.

use std::{io, os::fd::OwnedFd, path::Path, time::Duration};

use rustix::{
    io::ioctl_fionbio,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use tokio_seqpacket::UnixSeqpacket;

/// Connects; waits up to `limit` for room in the queue.
///
/// # Errors
/// As `connect`; `WouldBlock` if there was no room.
pub async fn connect_waiting(path: &Path, limit: Duration) -> io::Result<UnixSeqpacket> {
    let path = path.to_owned();
    let connected = tokio::task::spawn_blocking(move || connect_blocking(&path, limit)).await;
    UnixSeqpacket::try_from(connected.map_err(io::Error::other)??)
}

fn connect_blocking(path: &Path, limit: Duration) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // The limit of a connect, too (net/unix/af_unix.c, `unix_stream_connect`).
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio_seqpacket::UnixSeqpacketListener;

    use super::*;

    #[tokio::test]
    async fn it_waits_for_room_in_the_queue() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut listener = UnixSeqpacketListener::bind_with_backlog(&path, 0).unwrap();
        let first = UnixSeqpacket::connect(&path).await.unwrap();
        let full = connect_waiting(&path, Duration::from_millis(50)).await;
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let waiting = tokio::spawn({
            let path = path.clone();
            async move { connect_waiting(&path, Duration::from_secs(30)).await }
        });
        drop(listener.accept().await.unwrap());
        let second = waiting.await.unwrap().unwrap();
        second.send(b"hello").await.unwrap();
        let accepted = listener.accept().await.unwrap();
        assert_eq!(accepted.recv(&mut [0; 16]).await.unwrap().bytes_read(), 5);
        drop(first);
    }

    #[tokio::test]
    async fn a_missing_socket_is_an_error_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let missing = connect_waiting(&dir.path().join("s"), Duration::from_secs(30)).await;
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
