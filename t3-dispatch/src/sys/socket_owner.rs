//! Owners (uids) of TCP sockets of this host: of the other end of a local connection, and of the
//! listener that a connection would reach.
//!
//! Source: one lookup by `NETLINK_SOCK_DIAG`, which the kernel answers with the rules by which it
//! delivers a segment (net/ipv4/inet_diag.c, `inet_diag_find_one_icsk`); without such a socket, the
//! tables in `/proc/self/net`. The uid of a socket is that of the process that created or accepted
//! it; only a process with `CAP_CHOWN` can change it.
//!
//! The kernel translates uids to the user namespace in which the socket was opened. A service with
//! `PrivateUsers=yes` sees those of other users only through a socket that systemd opened
//! (`ListenNetlink=inet-diag`); its own has [`OVERFLOW_UID`] for all of them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, getsockname, netlink,
    netlink::SocketAddrNetlink, recv, sendto, socket_with,
};

pub use crate::sys::found_socket::{SocketOwner, State};
use crate::sys::{procfs_sockets, tcp::canonical};

/// uid that stands for all users without a number in this user namespace
/// (`/proc/sys/kernel/overflowuid`).
pub const OVERFLOW_UID: u32 = 65_534;

// include/uapi/linux/sock_diag.h, inet_diag.h, netlink.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NO_COOKIE: [u8; 8] = [0xff; 8];
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// The loopback device, by which all traffic within a host arrives (net/core/dev.h).
const LOOPBACK_INDEX: u32 = 1;
/// Length of `struct nlmsghdr`, and of `struct inet_diag_req_v2` after it.
const HEADER: usize = 16;
const REQUEST: usize = 56;
/// Offsets in `struct inet_diag_msg`.
const STATE_AT: usize = 1;
const PORTS_AT: usize = 4;
const UID_AT: usize = 64;
const INODE_AT: usize = 68;

/// Looks up the owners of sockets.
#[derive(Debug)]
pub struct SocketOwners {
    /// Socket and sequence number of the last request; `None` without sock_diag.
    netlink: Option<Mutex<(OwnedFd, u32)>>,
    /// The socket was opened outside this process, so that its uids are those of the host.
    is_passed: bool,
}

impl SocketOwners {
    /// Takes over a socket that systemd opened (`ListenNetlink=inet-diag`), or opens one. Without
    /// both, or if the kernel has no sock_diag for TCP, lookups read the tables of procfs.
    #[must_use]
    pub fn new(passed: Option<OwnedFd>) -> Self {
        let is_passed = passed.is_some();
        if let Some(socket) = &passed {
            // Answers that a previous process of the service did not read.
            while recv(socket, &mut [0_u8; 1024][..], RecvFlags::DONTWAIT).is_ok() {}
        }
        let socket = passed.or_else(|| open().ok());
        let owners = Self { netlink: socket.map(|socket| Mutex::new((socket, 0))), is_passed };
        // The kernel answers a request for an unknown protocol as one for an unknown socket.
        if owners.netlink.is_some() && !owners.finds_a_socket() {
            return Self::from_tables();
        }
        owners
    }

    /// Lookups in the tables of procfs only.
    #[must_use]
    pub const fn from_tables() -> Self {
        Self { netlink: None, is_passed: false }
    }

    /// Whether a lookup costs one request to the kernel, not a pass over all sockets.
    #[must_use]
    pub const fn is_indexed(&self) -> bool {
        self.netlink.is_some()
    }

    /// Source of the lookups, for the log.
    #[must_use]
    pub fn source(&self) -> &'static str {
        match (&self.netlink, self.is_passed) {
            (None, _) => "/proc/net/tcp",
            (Some(_), true) => "sock_diag (socket of systemd)",
            (Some(_), false) => "sock_diag",
        }
    }

    /// Whether lookups report the uids of all users: not in a user namespace that has only some.
    #[must_use]
    pub fn sees_all_users(&self) -> bool {
        (self.is_passed && self.netlink.is_some())
            || std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| is_whole(&map))
    }

    /// Returns the socket at the other end of a connection within this host, given the addresses of
    /// the own end; `None` if this network namespace does not have it.
    ///
    /// # Errors
    /// The lookup failed.
    pub fn peer(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<SocketOwner>> {
        let found = self.find(canonical(remote), canonical(local))?;
        Ok(found.filter(|socket| socket.state != State::Listen))
    }

    /// Returns the listener that a connection of this host to `address` would reach.
    ///
    /// # Errors
    /// The lookup failed.
    pub fn listener(&self, address: SocketAddr) -> io::Result<Option<SocketOwner>> {
        // No connection has port 0, so that only a listener is found.
        let found = self.find(canonical(address), SocketAddr::new(address.ip().to_canonical(), 0))?;
        Ok(found.filter(|socket| socket.state == State::Listen))
    }

    /// Finds the socket that receives a segment to `local` from `remote`.
    fn find(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<SocketOwner>> {
        let Some(netlink) = &self.netlink else { return procfs_sockets::find(local, remote) };
        let mut netlink = netlink.lock().unwrap_or_else(PoisonError::into_inner);
        let (socket, sequence) = &mut *netlink;
        *sequence = sequence.wrapping_add(1);
        let Some(request) = request(local, remote, *sequence) else { return Ok(None) };
        sendto(&*socket, &request, SendFlags::DONTWAIT, &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = [0_u8; 1024];
        loop {
            // The kernel has answered when the request is sent.
            let (length, _) = recv(&*socket, &mut buffer, RecvFlags::DONTWAIT)?;
            let message = buffer.get(..length).unwrap_or_default();
            // Answers to requests before an error of this socket are skipped.
            if u32_at(message, 8) == Some(*sequence) {
                return answer(message, local.port(), remote.port());
            }
        }
    }

    fn finds_a_socket(&self) -> bool {
        let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", 0)) else { return false };
        let found = listener.local_addr().and_then(|address| self.listener(address));
        matches!(found, Ok(Some(_)))
    }
}

/// Whether a socket passed by systemd is one of sock_diag.
#[must_use]
pub fn is_sock_diag(fd: &OwnedFd) -> bool {
    getsockname(fd).is_ok_and(|address| address.address_family() == AddressFamily::NETLINK)
}

fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?)
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`; `None` for addresses of two families.
fn request(local: SocketAddr, remote: SocketAddr, sequence: u32) -> Option<Vec<u8>> {
    let family = match (local, remote) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => AF_INET,
        (SocketAddr::V6(_), SocketAddr::V6(_)) => AF_INET6,
        _ => return None,
    };
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend(u32::try_from(HEADER + REQUEST).ok()?.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    request.extend([0; 4]);
    request.extend([family, IPPROTO_TCP, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    for address in [local, remote] {
        let mut bytes = [0; 16];
        match address.ip() {
            IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes = ip.octets(),
        }
        request.extend(bytes);
    }
    request.extend(LOOPBACK_INDEX.to_ne_bytes());
    request.extend(NO_COOKIE);
    Some(request)
}

/// Reads the answer: `struct inet_diag_msg`, or an error.
fn answer(message: &[u8], local: u16, remote: u16) -> io::Result<Option<SocketOwner>> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "sock_diag: short answer");
    let body = message.get(HEADER..).ok_or_else(short)?;
    match u16_at(message, 4) {
        Some(SOCK_DIAG_BY_FAMILY) => {}
        Some(NLMSG_ERROR) => {
            let errno = u32_at(body, 0).ok_or_else(short)?.cast_signed().wrapping_neg();
            return if errno == libc::ENOENT { Ok(None) } else { Err(io::Error::from_raw_os_error(errno)) };
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "sock_diag: unexpected answer")),
    }
    let state = *body.get(STATE_AT).ok_or_else(short)?;
    let ports = [u16_at(body, PORTS_AT), u16_at(body, PORTS_AT + 2)].map(|port| port.map(u16::from_be));
    let (uid, inode) = (u32_at(body, UID_AT).ok_or_else(short)?, u32_at(body, INODE_AT).ok_or_else(short)?);
    let Some(state) = State::from_number(state) else { return Ok(None) };
    let is_asked = ports[0] == Some(local) && (state == State::Listen || ports[1] == Some(remote));
    Ok(is_asked.then_some(SocketOwner { uid, inode: inode.into(), state }))
}

/// Whether a user namespace has all uids of the host, each with its own number
/// (user_namespaces(7)).
fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn sources() -> [SocketOwners; 2] {
        [SocketOwners::new(None), SocketOwners::from_tables()]
    }

    fn own_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn the_listener_of_an_address_is_found_by_all_sources() {
        for owners in sources() {
            for (bound, asked, is_found) in [
                ("127.0.0.1:0", "127.0.0.1", true),
                ("0.0.0.0:0", "127.0.0.1", true),
                ("[::]:0", "127.0.0.1", true),
                ("[::]:0", "::1", true),
                ("[::1]:0", "::1", true),
                ("127.0.0.2:0", "127.0.0.1", false),
                ("[::1]:0", "127.0.0.1", false),
                ("0.0.0.0:0", "::1", false),
            ] {
                let listener = TcpListener::bind(bound).unwrap();
                let port = listener.local_addr().unwrap().port();
                let asked = SocketAddr::new(asked.parse().unwrap(), port);
                let found = owners.listener(asked).unwrap();
                assert_eq!(
                    found.map(|found| (found.uid, found.inode > 0, found.state)),
                    is_found.then_some((own_uid(), true, State::Listen)),
                    "{}: {bound}, {asked}",
                    owners.source()
                );
                drop(listener);
                assert_eq!(owners.listener(asked).unwrap(), None);
            }
        }
    }

    #[test]
    fn the_other_end_of_a_connection_has_an_inode_once_it_is_accepted() {
        for owners in sources() {
            for bound in ["127.0.0.1:0", "[::1]:0"] {
                let listener = TcpListener::bind(bound).unwrap();
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let ends = (client.local_addr().unwrap(), client.peer_addr().unwrap());
                let found = owners.peer(ends.0, ends.1).unwrap().unwrap();
                assert_eq!((found.inode, found.state), (0, State::Connected), "{}", owners.source());
                let (server, _) = listener.accept().unwrap();
                let found = owners.peer(ends.0, ends.1).unwrap().unwrap();
                assert!(found.inode > 0 && found.uid == own_uid(), "{found:?}");
                let found = owners.peer(ends.1, ends.0).unwrap().unwrap();
                assert!(found.inode > 0, "the client's own end: {found:?}");
                server.shutdown(std::net::Shutdown::Write).unwrap();
                let found = owners.peer(ends.0, ends.1).unwrap().unwrap();
                assert_eq!(found.state, State::Closing);
                drop((client, server));
            }
        }
    }

    #[test]
    fn answers_are_read_only_if_they_are_complete_and_of_the_asked_socket() {
        let mut message = vec![0; HEADER + 72];
        message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        let body = &mut message[HEADER..];
        body[STATE_AT] = 1;
        body[PORTS_AT..PORTS_AT + 2].copy_from_slice(&80_u16.to_be_bytes());
        body[PORTS_AT + 2..PORTS_AT + 4].copy_from_slice(&4000_u16.to_be_bytes());
        body[UID_AT..UID_AT + 4].copy_from_slice(&1001_u32.to_ne_bytes());
        body[INODE_AT..].copy_from_slice(&7_u32.to_ne_bytes());
        let expected = SocketOwner { uid: 1001, inode: 7, state: State::Connected };
        assert_eq!(answer(&message, 80, 4000).unwrap(), Some(expected));
        assert_eq!(answer(&message, 80, 4001).unwrap(), None);
        assert_eq!(answer(&message, 81, 4000).unwrap(), None);
        for length in 0..message.len() {
            assert!(answer(&message[..length], 80, 4000).is_err(), "{length}");
        }
        let mut error = vec![0; HEADER + 20];
        error[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        for (errno, is_none) in [(-libc::ENOENT, true), (-libc::EACCES, false)] {
            error[HEADER..HEADER + 4].copy_from_slice(&errno.to_ne_bytes());
            assert_eq!(answer(&error, 80, 4000).is_ok_and(|found| found.is_none()), is_none);
        }
    }

    #[test]
    fn only_the_initial_user_namespace_has_all_users() {
        assert!(is_whole("         0          0 4294967295\n"));
        for map in ["", "0 0 1\n", "0 100000 65536\n", "0 0 1\n991 991 1\n"] {
            assert!(!is_whole(map), "{map:?}");
        }
    }
}
