//! Listening sockets of a port and overflows of accept queues, from `/proc/self/net`: why a connect
//! to this host failed.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr},
};

use procfs::{
    FromBufReadSI as _, ProcResult,
    net::{TcpNetEntries, TcpNetEntry},
};
use t3_record::evidence::Listeners;

/// State LISTEN in a socket table (Documentation/networking/proc_net_tcp.rst).
const LISTEN: &str = "0A";
const TABLES: [&str; 2] = ["tcp", "tcp6"];

/// Reads the listening sockets on the port of `address`; `None` if the tables are not readable.
#[must_use]
pub fn of(address: SocketAddr) -> Option<Listeners> {
    let tables: Vec<_> = TABLES.into_iter().filter_map(|table| listening(table).ok()).collect();
    if tables.is_empty() {
        return None;
    }
    let mut found = Listeners::default();
    for socket in tables.iter().flatten().filter(|socket| socket.local_address.port() == address.port()) {
        // `rx_queue` of a listening socket is the length of its accept queue.
        if accepts(socket.local_address.ip().to_canonical(), address.ip()) {
            found.queue = Some(found.queue.unwrap_or(0).max(socket.rx_queue));
        } else {
            found.elsewhere = true;
        }
    }
    Some(found)
}

/// Listening sockets of a table. The kernel lists them before all others, so only they are read.
fn listening(table: &str) -> ProcResult<Vec<TcpNetEntry>> {
    let file = BufReader::new(File::open(format!("/proc/self/net/{table}"))?);
    let mut lines = file.lines().map_while(Result::ok);
    let mut text = lines.next().unwrap_or_default();
    for line in lines.take_while(|line| is_listener(line)) {
        text.push('\n');
        text.push_str(&line);
    }
    let entries = TcpNetEntries::from_buf_read(text.as_bytes(), procfs::current_system_info())?;
    Ok(entries.0)
}

/// Whether a socket that listens on `own` accepts connections to `ip`. One on `::` is considered to
/// accept IPv4, too: the table does not have `IPV6_V6ONLY`.
#[must_use]
pub fn accepts(own: IpAddr, ip: IpAddr) -> bool {
    own == ip || (own.is_unspecified() && (own.is_ipv6() || ip.is_ipv4()))
}

/// Whether a line of a socket table is of a listening socket.
fn is_listener(line: &str) -> bool {
    line.split_whitespace().nth(3) == Some(LISTEN)
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
    fn a_listener_on_ipv6_accepts_ipv4_only_on_the_unspecified_address() {
        for (bound, queue) in [("[::]:0", Some(0)), ("[::1]:0", None)] {
            let listener = TcpListener::bind(bound).unwrap();
            let port = listener.local_addr().unwrap().port();
            let found = of(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
            assert_eq!((found.queue, found.elsewhere), (queue, queue.is_none()), "{bound}");
            assert_eq!(of(listener.local_addr().unwrap()).unwrap().queue, Some(0), "{bound}");
        }
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
