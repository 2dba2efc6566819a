//! Changes of the host's links, addresses and routes: rtnetlink(7), read only.
//!
//! By hand, because the daemon needs six kinds of messages and the crates for it bring a runtime of
//! their own. All input comes from the kernel: a message from another sender is ignored.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recvfrom,
    sendto, socket_with,
};

// include/uapi/linux/rtnetlink.h
const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const RTMGRP_IPV6_ROUTE: u32 = 0x400;
/// Groups of the events that [`parse`] knows; `ListenNetlink=` of the socket unit has the same.
pub const GROUPS: u32 =
    RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
// include/uapi/linux/if.h: set, and the lower layer can pass packets.
const IFF_UP: u32 = 0x1;
const IFF_RUNNING: u32 = 0x40;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A change, or an item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A link exists.
    Link { index: u32, name: String, is_up: bool },
    /// A link was removed.
    LinkGone { index: u32 },
    /// An address of a link.
    Address { index: u32, ip: IpAddr, is_present: bool },
    /// A route of the main table to this prefix.
    Route { to: IpAddr, length: u8, is_present: bool },
}

/// A socket that receives all changes.
#[derive(Debug)]
pub struct Rtnetlink(OwnedFd);

impl Rtnetlink {
    /// Opens a socket in the network namespace of this process.
    ///
    /// # Errors
    /// The process may not have netlink sockets.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    /// Takes over a bound socket, for example from systemd (`ListenNetlink=route`): it belongs to
    /// the namespace in which it was opened.
    ///
    /// # Errors
    /// It cannot be set to non-blocking mode.
    pub fn inherited(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self(socket))
    }

    /// Requests the list of all links, which arrives like changes. The lists must be read one after
    /// the other.
    ///
    /// # Errors
    /// The request cannot be sent.
    pub fn list_links(&self) -> io::Result<()> {
        self.list(RTM_GETLINK)
    }

    /// Requests the list of all addresses.
    ///
    /// # Errors
    /// The request cannot be sent.
    pub fn list_addresses(&self) -> io::Result<()> {
        self.list(RTM_GETADDR)
    }

    fn list(&self, kind: u16) -> io::Result<()> {
        let mut request = Vec::with_capacity(HEADER + 4);
        request.extend(20_u32.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        // Sequence number, sender (the kernel fills it in), and `struct rtgenmsg` for all families.
        request.extend([0; 12]);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.0, &request, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    /// Reads the next packet; `None` when nothing is pending.
    ///
    /// # Errors
    /// The kernel dropped messages (`ENOBUFS`), or the socket failed.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Vec<Message>>> {
        let (length, from) = match recvfrom(&self.0, &mut *buffer, RecvFlags::empty()) {
            Ok((length, _, from)) => (length, from),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Port 0 is the kernel.
        let of_kernel =
            from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).is_some_and(|from| from.pid() == 0);
        Ok(Some(if of_kernel { parse(buffer.get(..length).unwrap_or_default()) } else { Vec::new() }))
    }
}

impl AsFd for Rtnetlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Parses the messages of one packet; unknown and malformed ones are skipped.
#[must_use]
pub fn parse(mut packet: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while let Some(length) = u32_at(packet, 0).and_then(|length| usize::try_from(length).ok()) {
        let (Some(message), Some(kind)) = (packet.get(HEADER..length), u16_at(packet, 4)) else { break };
        found.extend(one(kind, message));
        packet = packet.get(aligned(length)..).unwrap_or_default();
    }
    found
}

fn one(kind: u16, message: &[u8]) -> Option<Message> {
    match kind {
        RTM_NEWLINK | RTM_DELLINK => {
            // struct ifinfomsg
            let (index, flags) = (u32_at(message, 4)?, u32_at(message, 8)?);
            if kind == RTM_DELLINK {
                return Some(Message::LinkGone { index });
            }
            let name = attribute(message.get(16..)?, IFLA_IFNAME)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let is_up = flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING;
            Some(Message::Link { index, name: String::from_utf8_lossy(name).into_owned(), is_up })
        }
        RTM_NEWADDR | RTM_DELADDR => {
            // struct ifaddrmsg
            let (family, index) = (*message.first()?, u32_at(message, 4)?);
            let attributes = message.get(8..)?;
            // Of a point-to-point link IFA_ADDRESS is that of the peer.
            let bytes = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
            Some(Message::Address { index, ip: ip(family, bytes)?, is_present: kind == RTM_NEWADDR })
        }
        RTM_NEWROUTE | RTM_DELROUTE => {
            // struct rtmsg
            let [family, length, _, _, table, _, _, route] = message.first_chunk::<8>()?;
            if *table != RT_TABLE_MAIN || *route != RTN_UNICAST {
                return None;
            }
            let to = match attribute(message.get(12..)?, RTA_DST) {
                Some(bytes) => ip(*family, bytes)?,
                None if *family == AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            };
            Some(Message::Route { to, length: *length, is_present: kind == RTM_NEWROUTE })
        }
        _ => None,
    }
}

/// Value of an attribute (`struct rtattr`).
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

fn ip(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        AF_INET6 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
        _ => None,
    }
}

const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_header(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message.resize(aligned(message.len()), 0);
        message
    }

    fn with_attribute(body: &[u8], kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = body.to_vec();
        out.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(value);
        out.resize(aligned(out.len()), 0);
        out
    }

    fn link(flags: u32) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend(7_u32.to_ne_bytes());
        body.extend(flags.to_ne_bytes());
        body.extend([0; 4]);
        with_attribute(&with_attribute(&body, 99, &[1, 2, 3]), IFLA_IFNAME, b"eth0\0")
    }

    #[test]
    fn a_packet_has_several_messages() {
        let mut packet = with_header(RTM_NEWLINK, &link(IFF_UP | IFF_RUNNING | 0x1000));
        packet.extend(with_header(RTM_NEWLINK, &link(IFF_UP)));
        packet.extend(with_header(3, &[]));
        packet.extend(with_header(RTM_DELLINK, &link(0)));
        let named = |is_up| Message::Link { index: 7, name: "eth0".to_owned(), is_up };
        assert_eq!(parse(&packet), [named(true), named(false), Message::LinkGone { index: 7 }]);
        for end in 0..packet.len() {
            assert!(parse(&packet[..end]).len() < 3, "{end}");
        }
    }

    #[test]
    fn the_own_address_of_a_link_and_the_default_route_are_recognised() {
        let mut body = vec![AF_INET, 24, 0, 0];
        body.extend(7_u32.to_ne_bytes());
        let body = with_attribute(&body, IFA_ADDRESS, &[192, 0, 2, 1]);
        let body = with_attribute(&body, IFA_LOCAL, &[192, 0, 2, 2]);
        let ip = "192.0.2.2".parse().unwrap();
        let gone = Message::Address { index: 7, ip, is_present: false };
        assert_eq!(parse(&with_header(RTM_DELADDR, &body)), [gone]);
        let route = |table, length| vec![AF_INET, length, 0, 0, table, 0, 0, RTN_UNICAST, 0, 0, 0, 0];
        let default = Message::Route { to: "0.0.0.0".parse().unwrap(), length: 0, is_present: false };
        assert_eq!(parse(&with_header(RTM_DELROUTE, &route(RT_TABLE_MAIN, 0))), [default]);
        let to = with_attribute(&route(RT_TABLE_MAIN, 8), RTA_DST, &[10, 0, 0, 0]);
        let there = Message::Route { to: "10.0.0.0".parse().unwrap(), length: 8, is_present: true };
        assert_eq!(parse(&with_header(RTM_NEWROUTE, &to)), [there]);
        assert_eq!(
            parse(&with_header(RTM_NEWROUTE, &route(255, 32))),
            [],
            "the local table repeats the addresses"
        );
    }

    #[test]
    fn the_loopback_is_listed() {
        let Ok(socket) = Rtnetlink::open() else {
            println!("skipped: no netlink sockets");
            return;
        };
        let mut buffer = vec![0; 65_536];
        let mut found = Vec::new();
        let read = |socket: &Rtnetlink,
                    found: &mut Vec<Message>,
                    buffer: &mut [u8],
                    is_there: fn(&Message) -> bool| {
            for _ in 0..200 {
                match socket.receive(buffer).unwrap() {
                    Some(messages) => found.extend(messages),
                    None => std::thread::sleep(std::time::Duration::from_millis(5)),
                }
                if found.iter().any(is_there) {
                    return;
                }
            }
            panic!("{found:?}");
        };
        socket.list_links().unwrap();
        read(
            &socket,
            &mut found,
            &mut buffer,
            |message| matches!(message, Message::Link { index: 1, name, .. } if name == "lo"),
        );
        // The kernel refuses a second list while the first one is not read to its end.
        while socket.receive(&mut buffer).unwrap().is_some() {}
        socket.list_addresses().unwrap();
        read(
            &socket,
            &mut found,
            &mut buffer,
            |message| matches!(message, Message::Address { index: 1, ip, is_present: true } if ip.is_loopback()),
        );
    }
}
