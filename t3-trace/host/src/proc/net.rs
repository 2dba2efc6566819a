//! TCP socket table `/proc/PID/net/tcp` and `tcp6` of the network namespace of a process
//! (Documentation/networking/proc_net_tcp.rst).
//!
//! The kernel lists all listening sockets before any other (net/ipv4/tcp_ipv4.c,
//! `tcp_seek_last_pos`), so finding listeners does not require reading thousands of connections.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

const LISTEN: &str = "0A";
const TABLES: [&str; 2] = ["tcp", "tcp6"];

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Local address; a v4-mapped one as IPv4.
    pub local: SocketAddr,
    /// Address of the peer, in the same form.
    pub remote: SocketAddr,
    /// State LISTEN.
    pub listening: bool,
    /// Owner of the socket.
    pub uid: u32,
    /// Inode of the socket; 0 when no process holds it.
    pub inode: u64,
}

/// Parses one line; `None` for the heading and malformed lines.
#[must_use]
pub fn row(line: &str) -> Option<Row> {
    let mut words = line.split_whitespace();
    words.next()?.strip_suffix(':')?.parse::<u64>().ok()?;
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    // Then: tx_queue:rx_queue, tr:tm->when, retrnsmt, uid, timeout, inode.
    let uid = words.nth(3)?.parse().ok()?;
    let inode = words.nth(1)?.parse().ok()?;
    Some(Row { local: address(local)?, remote: address(remote)?, listening: state == LISTEN, uid, inode })
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

/// Listening sockets in the network namespace of `pid`: port to inodes.
#[must_use]
pub fn listening(pid: u32) -> HashMap<u16, Vec<u64>> {
    let mut found: HashMap<u16, Vec<u64>> = HashMap::new();
    for row in listeners(pid) {
        found.entry(row.local.port()).or_default().push(row.inode);
    }
    found
}

/// Listening sockets of both tables; stops at the first connection of each.
pub fn listeners(pid: u32) -> impl Iterator<Item = Row> {
    TABLES
        .into_iter()
        .flat_map(move |table| rows(pid, table).take_while(|row| row.listening))
        .filter(|row| row.inode != 0)
}

/// Connections in the network namespace of `pid` that a process holds. Reads both tables to their
/// end: milliseconds with thousands of connections.
pub fn connections(pid: u32) -> impl Iterator<Item = Row> {
    let rows = TABLES.into_iter().flat_map(move |table| rows(pid, table));
    rows.filter(|row| !row.listening && row.inode != 0)
}

fn rows(pid: u32, table: &str) -> impl Iterator<Item = Row> + use<> {
    let file = File::open(format!("/proc/{pid}/net/{table}")).ok();
    let lines = file.map(BufReader::new).into_iter().flat_map(|file| file.lines().map_while(Result::ok));
    lines.filter_map(|line| row(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";

    #[test]
    fn listeners_and_connections_are_distinguished() {
        let listener = "   0: 0100007F:0EBD 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0";
        let (local, nobody) = ("127.0.0.1:3773".parse().unwrap(), "0.0.0.0:0".parse().unwrap());
        assert_eq!(
            row(listener),
            Some(Row { local, remote: nobody, listening: true, uid: 1000, inode: 4711 })
        );
        let connection = "  12: 0100007F:0EBD 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 20 4 30 10 -1";
        let remote = "127.0.0.1:40000".parse().unwrap();
        assert_eq!(row(connection), Some(Row { local, remote, listening: false, uid: 1000, inode: 4712 }));
        let six = "   1: 00000000000000000000000001000000:0EBD 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0 100 0 0 10 0";
        assert_eq!(row(six).unwrap().local, "[::1]:3773".parse().unwrap());
        let mapped = six.replace("00000000000000000000000001000000", "0000000000000000FFFF00000100007F");
        assert_eq!(row(&mapped).unwrap().local, local);
    }

    #[test]
    fn malformed_lines_are_skipped() {
        for line in [HEADING, "", "0:", "x: 1:2 3:4 0A", "   0: 0100007F 00000000:0000 0A a b c d e 1"] {
            assert_eq!(row(line), None, "{line:?}");
        }
    }

    #[test]
    fn listeners_are_found_among_connections() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_accepted, peer) = listener.accept().unwrap();
        let own: Vec<_> = connections(std::process::id()).filter(|row| row.local.port() == port).collect();
        assert_eq!(own.iter().map(|row| row.remote).collect::<Vec<_>>(), [peer]);
        let listening = listening(std::process::id());
        assert_eq!(listening[&port].len(), 1);
        assert!(!listening.contains_key(&client.local_addr().unwrap().port()));
    }
}
