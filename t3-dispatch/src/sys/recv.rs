//! Reads from a TCP socket that tell whether more can be read.
//!
//! A short read does not mean that the socket is empty: `recv` stops at the mark of urgent data
//! (net/ipv4/tcp.c, `tcp_recvmsg_locked`), and no event announces the bytes after it. With
//! `TCP_INQ` the kernel reports with each read what is left, so neither a second `recv` nor a wait
//! for the next packet is needed.
#![expect(unsafe_code, reason = "no safe wrapper knows TCP_INQ")]

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
};

/// Result of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// 0 at the end of the stream.
    pub length: usize,
    /// More bytes or the end can be read now.
    pub more: bool,
}

/// Makes the kernel report what is left after each read, and keep urgent data in the stream (RFC
/// 6093 section 6). Both are unknown to some kinds of sockets; [`recv`] does without.
pub fn prepare(socket: &impl AsRawFd) {
    set(socket, libc::IPPROTO_TCP, libc::TCP_INQ);
    set(socket, libc::SOL_SOCKET, libc::SO_OOBINLINE);
}

/// Returns whether a socket has the options of [`prepare`].
#[must_use]
pub fn is_prepared(socket: &(impl AsFd + AsRawFd)) -> bool {
    let mut on: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
    // SAFETY: the call writes at most `length` bytes to `on`; both outlive it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INQ,
            (&raw mut on).cast(),
            &raw mut length,
        )
    };
    result == 0 && on == 1 && rustix::net::sockopt::socket_oobinline(socket).unwrap_or(false)
}

fn set(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int) {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
    // SAFETY: the call reads `length` bytes of `on`, which outlives it.
    unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length);
    }
}

/// Reads once, without waiting.
///
/// # Errors
/// As `recvmsg`.
pub fn recv(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<Received> {
    // SAFETY: both types have the same layout, and the kernel only writes initialised bytes.
    let buffer = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
    recv_uninit(socket, buffer)
}

fn recv_uninit(socket: &impl AsRawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<Received> {
    // Aligned as a control message header, with room for one int.
    let mut control = [0_u64; 8];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all fields are integers or pointers, for which zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the pointers of `message` are valid for the lengths next to them, during the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let left = left(&message);
    Ok(Received { length, more: left.map_or(length == buffer.len(), |left| left > 0) })
}

/// Number of bytes left, as the kernel reports it.
fn left(message: &libc::msghdr) -> Option<libc::c_int> {
    // SAFETY: `message` was filled by `recvmsg`, so its control messages are within its buffer.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    let is_inq = header.cmsg_level == libc::IPPROTO_TCP && header.cmsg_type == libc::TCP_CM_INQ;
    // SAFETY: a message of this type has one int.
    is_inq.then(|| unsafe { libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned() })
}

/// Reads when the socket is readable.
pub fn poll_recv(stream: &TcpStream, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Received>> {
    poll_with(stream, cx, || recv(stream, buffer))
}

/// Maximum number of bytes of [`poll_read`]. The HTTP library sizes its buffers by the largest
/// read: a download that the client does not read then keeps kilobytes, not a megabyte.
const MAX_READ: usize = 16 * 1024;

/// As [`tokio::io::AsyncRead::poll_read`], up to 16 KiB.
pub fn poll_read(stream: &TcpStream, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    // SAFETY: `recv_uninit` de-initialises nothing.
    let unfilled = unsafe { buffer.unfilled_mut() };
    let most = unfilled.len().min(MAX_READ);
    let unfilled = &mut unfilled[..most];
    let received = ready!(poll_with(stream, cx, || recv_uninit(stream, unfilled)))?;
    // SAFETY: the kernel has written that many bytes to the start of the unfilled part.
    unsafe { buffer.assume_init(received.length) };
    buffer.advance(received.length);
    Poll::Ready(Ok(()))
}

fn poll_with(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    mut read: impl FnMut() -> io::Result<Received>,
) -> Poll<io::Result<Received>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let mut received = None;
        let result = stream.try_io(Interest::READABLE, || {
            let now = read()?;
            received = Some(now);
            // WouldBlock makes the next poll wait without a system call.
            if now.length > 0 && !now.more { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (received, result) {
            (Some(received), _) => return Poll::Ready(Ok(received)),
            (None, Err(error)) if retry(&error) => {}
            (None, Err(error)) => return Poll::Ready(Err(error)),
            (None, Ok(())) => {}
        }
    }
}

/// The call must be repeated, now or when the socket is ready.
#[must_use]
pub fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpStream, time::Duration};

    use rustix::net::{SendFlags, send};

    use super::*;
    use crate::sys::test_sockets::pair;

    /// Reads once the bytes have arrived.
    fn read(socket: &TcpStream, buffer: &mut [u8]) -> Received {
        std::thread::sleep(Duration::from_millis(20));
        recv(socket, buffer).unwrap()
    }

    #[test]
    fn a_read_tells_what_is_left() {
        let (mut client, server) = pair();
        prepare(&server);
        let mut buffer = [0; 8];
        assert_eq!(recv(&server, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"0123456789").unwrap();
        assert_eq!(read(&server, &mut buffer), Received { length: 8, more: true });
        assert_eq!(read(&server, &mut buffer), Received { length: 2, more: false });
        client.write_all(b"01234567").unwrap();
        assert_eq!(read(&server, &mut buffer), Received { length: 8, more: false }, "exactly one buffer");
        drop(client);
        assert_eq!(read(&server, &mut buffer), Received { length: 0, more: true });
    }

    #[test]
    fn the_end_is_left_after_the_last_bytes() {
        let (mut client, server) = pair();
        prepare(&server);
        client.write_all(b"x").unwrap();
        drop(client);
        assert_eq!(read(&server, &mut [0; 8]), Received { length: 1, more: true });
    }

    #[test]
    fn bytes_after_urgent_data_are_left_and_the_urgent_byte_is_in_the_stream() {
        let (mut client, server) = pair();
        prepare(&server);
        client.write_all(b"ab").unwrap();
        send(&client, b"!", SendFlags::OOB).unwrap();
        client.write_all(b"cd").unwrap();
        let (mut buffer, mut all) = ([0; 8], Vec::new());
        loop {
            let now = read(&server, &mut buffer);
            all.extend_from_slice(&buffer[..now.length]);
            if !now.more {
                break;
            }
        }
        assert_eq!(all, b"ab!cd");
    }

    #[test]
    fn without_the_option_a_full_buffer_means_more() {
        let (mut client, server) = pair();
        client.write_all(b"01234567").unwrap();
        assert_eq!(read(&server, &mut [0; 8]), Received { length: 8, more: true });
        client.write_all(b"0").unwrap();
        assert_eq!(read(&server, &mut [0; 8]), Received { length: 1, more: false });
    }
}
