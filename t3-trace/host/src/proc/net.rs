//! TCP socket table `/proc/PID/net/tcp` and `tcp6` of the network namespace of a process
//! (Documentation/networking/proc_net_tcp.rst).
//!
//! The kernel lists all listening sockets before any other (net/ipv4/tcp_ipv4.c,
//! `tcp_seek_last_pos`), so finding listeners does not require reading thousands of connections.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
};

const LISTEN: &str = "0A";

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub port: u16,
    /// State LISTEN.
    pub listening: bool,
    /// Inode of the socket; 0 when no process holds it.
    pub inode: u64,
}

/// Parses one line; `None` for the heading and malformed lines.
#[must_use]
pub fn row(line: &str) -> Option<Row> {
    let mut words = line.split_whitespace();
    words.next()?.strip_suffix(':')?.parse::<u64>().ok()?;
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
    // Then: tx_queue:rx_queue, tr:tm->when, retrnsmt, uid, timeout.
    let inode = words.nth(5)?.parse().ok()?;
    Some(Row { port: port(local)?, listening: state == LISTEN, inode })
}

/// Listening sockets in the network namespace of `pid`: port to inodes.
#[must_use]
pub fn listening(pid: u32) -> HashMap<u16, Vec<u64>> {
    let mut found: HashMap<u16, Vec<u64>> = HashMap::new();
    for row in rows(pid).filter(|row| row.inode != 0) {
        found.entry(row.port).or_default().push(row.inode);
    }
    found
}

/// Listening rows of both tables; stops at the first connection of each.
fn rows(pid: u32) -> impl Iterator<Item = Row> {
    ["tcp", "tcp6"].into_iter().flat_map(move |table| {
        let file = File::open(format!("/proc/{pid}/net/{table}")).ok();
        let lines = file.map(BufReader::new).into_iter().flat_map(|file| file.lines().map_while(Result::ok));
        lines.filter_map(|line| row(&line)).take_while(|row| row.listening)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";

    #[test]
    fn listeners_and_connections_are_distinguished() {
        let listener = "   0: 0100007F:0EBD 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0";
        assert_eq!(row(listener), Some(Row { port: 3773, listening: true, inode: 4711 }));
        let connection = "  12: 0100007F:0EBD 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 20 4 30 10 -1";
        assert_eq!(row(connection), Some(Row { port: 3773, listening: false, inode: 4712 }));
        let six = "   1: 00000000000000000000000001000000:0EBD 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0 100 0 0 10 0";
        assert_eq!(row(six).unwrap().port, 3773);
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
        let _accepted = listener.accept().unwrap();
        let listening = listening(std::process::id());
        assert_eq!(listening[&port].len(), 1);
        assert!(!listening.contains_key(&client.local_addr().unwrap().port()));
    }
}
