//! `TCP_INFO` and send queue length of one socket. Decodes by the offsets of `struct tcp_info`
//! (include/uapi/linux/tcp.h), which grows only at its end: fields that an older kernel does not
//! fill are unknown, not zero.
#![expect(unsafe_code, reason = "no safe wrapper knows TCP_INFO")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use t3_record::evidence::TcpFacts;

/// Buffer size in bytes, larger than any `struct tcp_info`; the kernel fills its part.
const SIZE: usize = 256;

/// Reads `TCP_INFO`.
///
/// # Errors
/// As `getsockopt`.
pub fn read(socket: &impl AsRawFd) -> io::Result<TcpFacts> {
    let (bytes, length) = raw(socket)?;
    decode(&bytes[..length])
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("TCP_INFO of {length} bytes")))
}

/// Returns the state of a connection (include/net/tcp_states.h), and the time since the last
/// segment with data arrived; without one, since the handshake (net/ipv4/tcp_minisocks.c,
/// `tcp_create_openreq_child`). Also for a connection that was reset.
///
/// # Errors
/// As `getsockopt`.
pub fn arrival(socket: &impl AsRawFd) -> io::Result<(u8, Duration)> {
    // `tcpi_last_data_recv`, in milliseconds; `tcpi_state` is the first byte.
    const AT: usize = 52;
    let (bytes, length) = raw(socket)?;
    let field = bytes[..length].get(AT..AT + 4).and_then(|bytes| bytes.try_into().ok());
    let millis = field.map(u32::from_ne_bytes).ok_or(io::ErrorKind::InvalidData)?;
    Ok((bytes[0], Duration::from_millis(u64::from(millis))))
}

/// Returns the state, the bytes received in order and the bytes acknowledged by the peer
/// (`tcpi_state`, `tcpi_bytes_received`, `tcpi_bytes_acked`), read at one time.
///
/// # Errors
/// As `getsockopt`; [`io::ErrorKind::Unsupported`] for a kernel without these counters (before 4.1)
/// and for MPTCP.
pub fn stream(socket: &impl AsRawFd) -> io::Result<(u8, u64, u64)> {
    let (bytes, length) = raw(socket)?;
    let long = |at: usize| Some(u64::from_ne_bytes(bytes[..length].get(at..at + 8)?.try_into().ok()?));
    let fields = long(128).zip(long(120)).map(|(received, acked)| (bytes[0], received, acked));
    fields.ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Returns the number of bytes that can be read (tcp(7), `SIOCINQ`).
///
/// # Errors
/// As `ioctl`.
pub fn unread(socket: &impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(socket)?)
}

/// Whether a connection is open in both directions, as far as this end knows.
#[must_use]
pub fn is_established(socket: &impl AsRawFd) -> bool {
    // `tcpi_state`, TCP_ESTABLISHED.
    raw(socket).is_ok_and(|(bytes, length)| length > 0 && bytes[0] == 1)
}

/// Returns the number of connections that wait to be accepted (net/ipv4/tcp.c, `tcp_get_info`).
///
/// # Errors
/// As `getsockopt`; [`io::ErrorKind::InvalidInput`] for a socket that does not listen.
pub fn accept_queue(listener: &impl AsRawFd) -> io::Result<u32> {
    // `tcpi_unacked`; TCP_LISTEN.
    const AT: usize = 24;
    const LISTEN: u8 = 10;
    let (bytes, length) = raw(listener)?;
    let field = bytes[..length].get(AT..AT + 4).and_then(|bytes| bytes.try_into().ok());
    let queued = field.map(u32::from_ne_bytes).filter(|_| bytes[0] == LISTEN);
    queued.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn raw(socket: &impl AsRawFd) -> io::Result<([u8; SIZE], usize)> {
    let mut bytes = [0u8; SIZE];
    let mut length = libc::socklen_t::try_from(SIZE).unwrap_or(0);
    // SAFETY: `bytes` is writable for `length` bytes and both outlive the call, which writes at
    // most that many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((bytes, (length as usize).min(SIZE)))
}

/// Reads `TCP_USER_TIMEOUT` in milliseconds; `None` for the default of the kernel, which is 0.
pub fn user_timeout(socket: &impl AsFd) -> Option<u32> {
    rustix::net::sockopt::tcp_user_timeout(socket).ok().filter(|timeout| *timeout > 0)
}

/// Returns the number of bytes that were written and not acknowledged by the peer (tcp(7),
/// `SIOCOUTQ`).
///
/// # Errors
/// As `ioctl`.
pub fn unacknowledged(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one int, to which the pointer is valid. SIOCOUTQ is the same number
    // as TIOCOUTQ.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Returns `None` when the data is shorter than on any supported kernel (4.6: through
/// `tcpi_notsent_bytes`).
fn decode(info: &[u8]) -> Option<TcpFacts> {
    let byte = |at: usize| info.get(at).copied();
    let word = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(info.get(at..at + 8)?.try_into().ok()?));
    // A reset clears `tcpi_unacked`, and not the counters of bytes.
    let outstanding = || {
        let (acknowledged, sent, sent_again) = (long(120)?, long(200)?, long(208)?);
        let bytes = sent.saturating_sub(sent_again).saturating_sub(acknowledged);
        Some(u32::try_from(bytes).unwrap_or(u32::MAX))
    };
    Some(TcpFacts {
        retransmits: byte(2)?,
        probes: byte(3)?,
        backoff: byte(4)?,
        unacked: word(24)?,
        lost: word(32)?,
        last_data_sent_ms: word(44)?,
        last_data_recv_ms: word(52)?,
        last_ack_recv_ms: word(56)?,
        rtt_us: word(68)?,
        total_retrans: word(100)?,
        out_of_order: word(224),
        notsent_bytes: word(144)?,
        peer_window: word(228),
        user_timeout_ms: None,
        outstanding: outstanding(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_those_of_the_c_struct() {
        use std::mem::offset_of;
        assert_eq!(offset_of!(libc::tcp_info, tcpi_retransmits), 2);
        assert_eq!(offset_of!(libc::tcp_info, tcpi_backoff), 4);
        assert_eq!(offset_of!(libc::tcp_info, tcpi_unacked), 24);
        assert_eq!(offset_of!(libc::tcp_info, tcpi_lost), 32);
        assert_eq!(offset_of!(libc::tcp_info, tcpi_last_data_sent), 44);
        assert_eq!(offset_of!(libc::tcp_info, tcpi_last_data_recv), 52);
        assert_eq!(offset_of!(libc::tcp_info, tcpi_last_ack_recv), 56);
        assert_eq!(offset_of!(libc::tcp_info, tcpi_rtt), 68);
        assert_eq!(offset_of!(libc::tcp_info, tcpi_total_retrans), 100);
    }

    #[test]
    fn fields_that_an_old_kernel_does_not_fill_are_unknown() {
        assert_eq!(decode(&[0; 104]), None);
        assert_eq!(
            decode(&[1; 160]).map(|facts| (facts.peer_window, facts.out_of_order)),
            Some((None, None))
        );
        assert_eq!(decode(&[1; 160]).and_then(|facts| facts.outstanding), None);
        assert_eq!(decode(&[1; 232]).and_then(|facts| facts.peer_window), Some(0x0101_0101));
    }

    #[test]
    fn the_connections_of_an_accept_queue_are_counted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(accept_queue(&listener).unwrap(), 0);
        let clients = [connect(), connect()];
        assert_eq!(accept_queue(&listener).unwrap(), 2);
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(accept_queue(&listener).unwrap(), 1);
        assert!(accept_queue(&accepted).is_err() && accept_queue(&clients[0]).is_err());
    }

    #[test]
    fn data_that_a_reset_left_unacknowledged_is_known_after_it() {
        let mut info = [0u8; 232];
        for (at, value) in [(120, 700_u64), (200, 1_000), (208, 200)] {
            info[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        assert_eq!(decode(&info).and_then(|facts| facts.outstanding), Some(100));
    }

    #[test]
    fn unread_data_of_the_peer_shows_in_the_send_queue() {
        use std::io::Write;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        let facts = read(&client).unwrap();
        assert_eq!(facts.notsent_bytes, 0);
        assert!(facts.rtt_us > 0 && facts.last_data_sent_ms < 5000, "{facts:?}");
        // A zero window keeps the rest in the send queue.
        client.set_nonblocking(true).unwrap();
        let mut written = 1;
        while let Ok(count) = client.write(&[0; 4096]) {
            written += count as u64;
        }
        let queued = unacknowledged(&client).unwrap();
        assert!((1..written).contains(&queued), "{queued} of {written}");
    }
}
