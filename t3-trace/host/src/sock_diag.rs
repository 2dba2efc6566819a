//! Counters of single TCP sockets: sock_diag(7), read only.
//!
//! By the ends of a connection, not as a list of all: the cost depends on the number of wanted
//! sockets, and other sockets of the host are not read. The kernel replies while it receives the
//! request, so no call waits.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{self, SocketAddrNetlink},
    recvfrom, sendto, socket_with,
};
use t3_record::evidence::Nanos;

use crate::clock::{self, SECOND};

const MILLISECOND: Nanos = SECOND / 1_000;

// include/uapi/linux/sock_diag.h, inet_diag.h, net/tcp_states.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_INFO: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const ESTABLISHED: u8 = 1;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of a request: `struct nlmsghdr` and `struct inet_diag_req_v2`.
const REQUEST: usize = HEADER + 56;
/// Length of `struct inet_diag_msg`.
const MESSAGE: usize = 72;
/// Requests that are sent together: their replies fit into a receive buffer of the default size.
const TOGETHER: usize = 64;
/// Longest packet.
const PACKET: usize = 32 * 1024;

/// State of an established connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSample {
    /// Bytes received.
    pub received: u64,
    /// Bytes sent, without retransmissions.
    pub sent: u64,
    /// Time of the last received data, to a few milliseconds; without any, of the establishment.
    pub last_received: Nanos,
    /// Time of the last sent data; without any, of the establishment.
    pub last_sent: Nanos,
    /// Time that reading took: the times above can be earlier by this.
    pub precision: Nanos,
    /// Segments retransmitted.
    pub retrans: u32,
    /// Bytes received that the process has not read.
    pub unread: u32,
    /// Bytes written that the peer has not acknowledged.
    pub unacked: u32,
}

/// A socket for requests, for the sockets of one network namespace.
#[derive(Debug)]
pub struct SockDiag(OwnedFd);

impl SockDiag {
    /// Opens one for the network namespace of this process.
    ///
    /// # Errors
    /// The process may not have netlink sockets, or the kernel has no `inet_diag`.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::SOCK_DIAG);
        Ok(Self(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?))
    }

    /// Takes over a socket, for example from systemd (`ListenNetlink=inet-diag`): it belongs to the
    /// namespace in which it was opened.
    ///
    /// # Errors
    /// It cannot be set to non-blocking mode.
    pub fn inherited(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self(socket))
    }

    /// Reads the sockets with these local and remote addresses, in this order; `None` for one that
    /// is not established.
    ///
    /// # Errors
    /// A request cannot be sent, or replies were dropped.
    pub fn read(&self, ends: &[(SocketAddr, SocketAddr)]) -> io::Result<Vec<Option<TcpSample>>> {
        let mut found = vec![None; ends.len()];
        let mut buffer = vec![0; PACKET];
        let kernel = SocketAddrNetlink::new(0, 0);
        // Replies to a request that failed half-way.
        while self.receive(&mut buffer)?.is_some() {}
        for (number, some) in ends.chunks(TOGETHER).enumerate() {
            let first = number * TOGETHER;
            let mut requests = Vec::with_capacity(TOGETHER * REQUEST);
            for (place, (local, remote)) in (first..).zip(some) {
                request(&mut requests, u32::try_from(place).unwrap_or(u32::MAX), *local, *remote);
            }
            let began_at = clock::monotonic();
            sendto(&self.0, &requests, SendFlags::empty(), &kernel)?;
            while let Some(length) = self.receive(&mut buffer)? {
                let now = clock::monotonic();
                for (place, mut sample) in parse(buffer.get(..length).unwrap_or_default(), now) {
                    sample.precision = now.saturating_sub(began_at);
                    if let Some(found) = found.get_mut(place) {
                        *found = Some(sample);
                    }
                }
            }
        }
        Ok(found)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match recvfrom(&self.0, &mut *buffer, RecvFlags::empty()) {
                Ok((length, _, from)) => {
                    let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
                    // Port 0 is the kernel.
                    if from.is_some_and(|from| from.pid() == 0) {
                        return Ok(Some(length));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn request(out: &mut Vec<u8>, sequence: u32, local: SocketAddr, remote: SocketAddr) {
    let (source, destination) = (local.ip().to_canonical(), remote.ip().to_canonical());
    let is_v4 = source.is_ipv4();
    out.extend(u32::try_from(REQUEST).unwrap_or_default().to_ne_bytes());
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend(NLM_F_REQUEST.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    // Sender: the kernel fills it in.
    out.extend([0; 4]);
    // struct inet_diag_req_v2
    out.extend([if is_v4 { AF_INET } else { AF_INET6 }, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
    out.extend((1_u32 << ESTABLISHED).to_ne_bytes());
    out.extend(local.port().to_be_bytes());
    out.extend(remote.port().to_be_bytes());
    for ip in [source, destination] {
        match ip {
            IpAddr::V4(ip) => {
                out.extend(ip.octets());
                out.extend([0; 12]);
            }
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
    }
    out.extend([0; 4]);
    // No cookie.
    out.extend([0xff; 8]);
}

/// Parses the replies of one packet, with the numbers of their requests; errors are skipped.
fn parse(mut packet: &[u8], now: Nanos) -> Vec<(usize, TcpSample)> {
    let mut found = Vec::new();
    while let Some(length) = u32_at(packet, 0).and_then(|length| usize::try_from(length).ok()) {
        let Some(message) = packet.get(HEADER..length) else { break };
        if u16_at(packet, 4) == Some(SOCK_DIAG_BY_FAMILY) {
            let place = u32_at(packet, 8).and_then(|sequence| usize::try_from(sequence).ok());
            found.extend(place.zip(one(message, now)));
        }
        packet = packet.get(aligned(length)..).unwrap_or_default();
    }
    found
}

fn one(message: &[u8], now: Nanos) -> Option<TcpSample> {
    if message.get(1) != Some(&ESTABLISHED) {
        return None;
    }
    let info = attribute(message.get(MESSAGE..)?, INET_DIAG_INFO)?;
    let ago = |at| {
        let age = Nanos::from(u32_at(info, at)?).checked_mul(MILLISECOND)?;
        Some(now.saturating_sub(age))
    };
    Some(TcpSample {
        received: u64_at(info, 128)?,
        // The kernel counts retransmitted bytes twice.
        sent: u64_at(info, 200)?.saturating_sub(u64_at(info, 208)?),
        last_received: ago(52)?,
        last_sent: ago(44)?,
        precision: 0,
        retrans: u32_at(info, 100)?,
        unread: u32_at(message, 56)?,
        unacked: u32_at(message, 60)?,
    })
}

/// Value of an attribute (`struct nlattr`).
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, kind) = (usize::from(u16_at(attributes, 0)?), u16_at(attributes, 2)?);
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(aligned(length)..)?;
    }
}

const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use proptest::prelude::*;

    use super::*;

    /// A connection of two sockets; `None` without netlink sockets.
    fn connected(listen: &str) -> Option<(SockDiag, TcpStream, TcpStream)> {
        let Ok(diag) = SockDiag::open() else {
            println!("skipped: no netlink sockets");
            return None;
        };
        let listener = TcpListener::bind(listen).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        Some((diag, client, listener.accept().unwrap().0))
    }

    fn ends(stream: &TcpStream) -> (SocketAddr, SocketAddr) {
        (stream.local_addr().unwrap(), stream.peer_addr().unwrap())
    }

    #[test]
    fn both_ends_have_the_same_bytes() {
        // The second one is a socket of IPv6 with addresses of IPv4.
        for listen in ["127.0.0.1:0", "[::]:0"] {
            let Some((diag, mut client, mut server)) = connected(listen) else { return };
            let before = clock::monotonic();
            client.write_all(&[1; 1_000]).unwrap();
            server.read_exact(&mut [0; 900]).unwrap();
            server.write_all(&[1; 7]).unwrap();
            client.read_exact(&mut [0; 7]).unwrap();
            let gone = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
            let found = diag.read(&[ends(&client), gone, ends(&server)]).unwrap();
            let [Some(client), None, Some(server)] = found[..] else { panic!("{found:?}") };
            assert_eq!((client.sent, client.received, server.sent, server.received), (1_000, 7, 7, 1_000));
            assert_eq!((client.unread, server.unread, client.retrans), (0, 100, 0));
            for at in [client.last_sent, server.last_received] {
                assert!(at.abs_diff(before) < SECOND, "{at} {before}");
            }
        }
    }

    #[test]
    fn more_than_one_batch_is_read_and_an_ending_connection_is_not() {
        let Some((diag, client, server)) = connected("127.0.0.1:0") else { return };
        let found = diag.read(&vec![ends(&client); 1_000]).unwrap();
        assert_eq!(found.iter().flatten().count(), 1_000);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(diag.read(&[ends(&client), ends(&server)]).unwrap(), [None, None]);
        assert_eq!(diag.read(&[]).unwrap(), []);
    }

    proptest! {
        #[test]
        fn any_packet_is_parsed(bytes: Vec<u8>, now: u64) {
            let mut message = 600_u32.to_ne_bytes().to_vec();
            message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            message.extend(&bytes);
            let _ = (parse(&bytes, now), parse(&message, now));
        }
    }
}
