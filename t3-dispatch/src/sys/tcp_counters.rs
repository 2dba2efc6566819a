//! Position of a process in the two byte streams of a TCP socket, by the counters of the kernel:
//! how much was read from it and how much was written to it since the handshake. They do not depend
//! on the memory of the process, so its successor reads the same.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use crate::sys::tcp_info;

/// States of a connection (include/net/tcp_states.h).
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// Attempts to read counters that belong together: a segment that arrives changes them.
const ATTEMPTS: usize = 1000;

/// Positions in the streams of a socket, relative to an unknown start that does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCounters {
    /// Bytes that the process has read (`tcpi_bytes_received` less `SIOCINQ`), without a FIN.
    pub read: u64,
    /// Bytes that the process has written (`tcpi_bytes_acked` plus `SIOCOUTQ`), without a FIN.
    pub written: u64,
    /// The connection has ended by RST or error: whether the counters include a FIN is unknown.
    pub is_closed: bool,
}

/// Values of the kernel, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Raw {
    state: u8,
    received: u64,
    acked: u64,
    unread: u64,
    unacked: u64,
}

/// Reads the positions of a socket.
///
/// # Errors
/// As `getsockopt` and `ioctl`; [`io::ErrorKind::Unsupported`] for a kernel without these counters,
/// [`io::ErrorKind::TimedOut`] if they do not stop changing.
pub fn read(socket: &(impl AsRawFd + AsFd)) -> io::Result<StreamCounters> {
    for _ in 0..ATTEMPTS {
        let before = tcp_info::stream(socket)?;
        let unread = tcp_info::unread(socket)?;
        let unacked = tcp_info::unacknowledged(socket)?;
        let after = tcp_info::stream(socket)?;
        if before == after {
            let (state, received, acked) = before;
            return Ok(positions(Raw { state, received, acked, unread, unacked }));
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// The sequence number of a FIN counts as a byte (RFC 9293 section 3.4), and so it does in the
/// counters: in `tcpi_bytes_received` from its arrival on, in `tcpi_bytes_acked` and `SIOCOUTQ`
/// together from its sending on (net/ipv4/tcp_input.c, `tcp_rcv_nxt_update` and
/// `tcp_snd_una_update`). `SIOCINQ` excludes it (include/net/tcp.h, `tcp_inq`).
const fn positions(raw: Raw) -> StreamCounters {
    let has_received = matches!(raw.state, CLOSE_WAIT | LAST_ACK | CLOSING | TIME_WAIT);
    let has_sent = matches!(raw.state, FIN_WAIT1 | FIN_WAIT2 | CLOSING | LAST_ACK | TIME_WAIT);
    StreamCounters {
        read: raw.received.wrapping_sub(raw.unread).wrapping_sub(has_received as u64),
        written: raw.acked.wrapping_add(raw.unacked).wrapping_sub(has_sent as u64),
        is_closed: raw.state == CLOSE,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Shutdown, TcpStream},
        time::Duration,
    };

    use super::*;
    use crate::sys::test_sockets::pair;

    /// Positions relative to the first reading.
    fn since(socket: &TcpStream, start: StreamCounters) -> (u64, u64) {
        std::thread::sleep(Duration::from_millis(20));
        let now = read(socket).unwrap();
        (now.read.wrapping_sub(start.read), now.written.wrapping_sub(start.written))
    }

    #[test]
    fn only_what_the_process_read_and_wrote_counts() {
        for is_client in [true, false] {
            let (client, server) = pair();
            let (mut own, mut peer) = if is_client { (client, server) } else { (server, client) };
            let start = read(&own).unwrap();
            own.write_all(b"12345").unwrap();
            peer.write_all(b"abcdefg").unwrap();
            assert_eq!(since(&own, start), (0, 5));
            own.read_exact(&mut [0; 3]).unwrap();
            assert_eq!(since(&own, start), (3, 5));
            peer.shutdown(Shutdown::Write).unwrap();
            assert_eq!(since(&own, start), (3, 5), "FIN received, not read");
            own.read_exact(&mut [0; 4]).unwrap();
            assert_eq!(own.read(&mut [0; 4]).unwrap(), 0);
            assert_eq!(since(&own, start), (7, 5), "FIN read");
            own.write_all(b"6").unwrap();
            own.shutdown(Shutdown::Write).unwrap();
            // The peer has acknowledged it: nothing is left of the connection.
            assert_eq!(since(&own, start), (8, 7), "with both FINs");
            assert!(read(&own).unwrap().is_closed);
        }
    }

    #[test]
    fn a_fin_that_is_sent_first_does_not_count() {
        let (mut own, mut peer) = pair();
        let start = read(&own).unwrap();
        own.write_all(b"123").unwrap();
        own.shutdown(Shutdown::Write).unwrap();
        assert_eq!(since(&own, start), (0, 3));
        peer.write_all(b"xy").unwrap();
        assert_eq!(since(&own, start), (0, 3));
        assert_eq!(own.read(&mut [0; 8]).unwrap(), 2);
        assert_eq!(since(&own, start), (2, 3));
    }

    #[test]
    fn bytes_that_the_peer_does_not_accept_are_written() {
        let (mut own, peer) = pair();
        own.set_nonblocking(true).unwrap();
        let start = read(&own).unwrap();
        let mut written = 0;
        while let Ok(length) = own.write(&[0; 65536]) {
            written += length as u64;
        }
        assert_eq!(since(&own, start), (0, written));
        drop(peer);
        assert!(read(&own).unwrap().is_closed, "unread bytes at the close: RST");
    }
}
