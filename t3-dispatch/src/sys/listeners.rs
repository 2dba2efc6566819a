//! Listening sockets of a port and overflows of accept queues, from `/proc/self/net`: why a connect
//! to this host failed.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use t3_record::evidence::Listeners;

/// State LISTEN in a socket table (Documentation/networking/proc_net_tcp.rst).
const LISTEN: &str = "0A";
const TABLES: [&str; 2] = ["tcp", "tcp6"];

/// Reads the listening sockets on the port of `address`; `None` if the tables are not readable.
/// The kernel lists listening sockets before all others, so only they are read.
#[must_use]
pub fn of(address: SocketAddr) -> Option<Listeners> {
    let mut found = Listeners::default();
    let mut readable = false;
    for table in TABLES {
        let Ok(file) = File::open(format!("/proc/self/net/{table}")) else { continue };
        readable = true;
        let lines = BufReader::new(file).lines().map_while(Result::ok).skip(1);
        lines.map_while(|line| listener(&line)).for_each(|(local, queue)| {
            if local.port() != address.port() {
            } else if accepts(local.ip(), address.ip()) {
                found.queue = Some(found.queue.unwrap_or(0).max(queue));
            } else {
                found.elsewhere = true;
            }
        });
    }
    readable.then_some(found)
}

/// Whether a socket that listens on `own` accepts connections to `ip`. One on `::` is considered to
/// accept IPv4, too: the table does not have `IPV6_V6ONLY`.
fn accepts(own: IpAddr, ip: IpAddr) -> bool {
    own == ip || (own.is_unspecified() && (own.is_ipv6() || ip.is_ipv4()))
}

/// Local address and length of the accept queue; `None` for another state.
fn listener(line: &str) -> Option<(SocketAddr, u32)> {
    let mut words = line.split_whitespace().skip(1);
    let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
    // tx_queue:rx_queue; the second is the length of the accept queue.
    let queue = u32::from_str_radix(words.next()?.split_once(':')?.1, 16).ok()?;
    Some((address(local)?, queue)).filter(|_| state == LISTEN)
}

/// Parses an address: 32-bit words in the byte order of the host, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut octets = [0; 16];
            for (at, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Number of connection attempts that full accept queues have dropped in this network namespace
/// (`ListenOverflows`).
#[must_use]
pub fn overflows() -> Option<u64> {
    counter(&std::fs::read_to_string("/proc/self/net/netstat").ok()?, "TcpExt:", "ListenOverflows")
}

/// A counter of a file with one line of names and one line of values per group.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let at = lines.next()?.split_whitespace().position(|word| word == name)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_listener_is_found_by_its_address_with_its_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(of(address), Some(Listeners { queue: Some(0), elsewhere: false, overflowed: None }));
        let _waiting = TcpStream::connect(address).unwrap();
        assert_eq!(of(address).unwrap().queue, Some(1));
        let other = SocketAddr::from(([127, 0, 0, 2], address.port()));
        assert_eq!(of(other), Some(Listeners { queue: None, elsewhere: true, overflowed: None }));
        drop(listener);
        assert_eq!(of(address), Some(Listeners::default()));
    }

    #[test]
    fn wildcard_addresses_accept_connections() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (own, accepted) in
            [("127.0.0.1", true), ("0.0.0.0", true), ("::", true), ("::1", false), ("192.0.2.1", false)]
        {
            assert_eq!(accepts(ip(own), ip("127.0.0.1")), accepted, "{own}");
        }
        assert!(!accepts(ip("0.0.0.0"), ip("::1")));
    }

    #[test]
    fn counters_are_read_by_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 3\nIpExt: A\nIpExt: 9\n";
        assert_eq!(counter(text, "TcpExt:", "ListenOverflows"), Some(22));
        assert_eq!(counter(text, "TcpExt:", "Absent"), None);
        assert_eq!(counter("", "TcpExt:", "ListenOverflows"), None);
        assert!(overflows().is_some());
    }
}
