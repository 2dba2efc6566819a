//! TCP sockets of this network namespace with their owners, from the tables `/proc/self/net/tcp`
//! and `tcp6`. Costs a pass over the tables.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::{IpAddr, SocketAddr},
};

use procfs::{FromBufReadSI as _, net::TcpNetEntries};

use crate::sys::{
    found_socket::{SocketOwner, State},
    tcp::canonical,
};

const TABLES: [&str; 2] = ["tcp", "tcp6"];

/// Finds the socket that receives a segment to `local` from `remote`: the connection, else the
/// listener with the most specific address.
///
/// # Errors
/// No table can be read.
pub fn find(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<SocketOwner>> {
    let mut best: Option<(u8, SocketOwner)> = None;
    let mut failed = None;
    for table in TABLES {
        if let Err(error) = scan(table, local, remote, &mut best) {
            failed = failed.or(Some(error));
        }
    }
    match (best, failed) {
        (Some((_, found)), _) => Ok(Some(found)),
        // The kernel can be without IPv6, but then no socket is in its table.
        (None, Some(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        (None, _) => Ok(None),
    }
}

fn scan(
    table: &str,
    local: SocketAddr,
    remote: SocketAddr,
    best: &mut Option<(u8, SocketOwner)>,
) -> io::Result<()> {
    let mut lines = BufReader::new(File::open(format!("/proc/self/net/{table}"))?).lines();
    let title = lines.next().transpose()?.unwrap_or_default();
    let port = format!(":{:04X}", local.port());
    for line in lines {
        let line = line?;
        // Most lines are of other ports.
        if !line.split_whitespace().nth(1).is_some_and(|address| address.ends_with(&port)) {
            continue;
        }
        let text = format!("{title}\n{line}\n");
        let Ok(entries) = TcpNetEntries::from_buf_read(text.as_bytes(), procfs::current_system_info()) else {
            continue;
        };
        for entry in entries.0 {
            let Some(state) = u8::from_str_radix(line.split_whitespace().nth(3).unwrap_or_default(), 16)
                .ok()
                .and_then(State::from_number)
            else {
                continue;
            };
            let own = canonical(entry.local_address);
            let rank = match state {
                State::Listen => accepts(own.ip(), local.ip()),
                _ => (own == local && canonical(entry.remote_address) == remote).then_some(3),
            };
            let found = SocketOwner { uid: entry.uid, inode: entry.inode, state };
            if let Some(rank) = rank
                && best.is_none_or(|(known, _)| known < rank)
            {
                *best = Some((rank, found));
            }
        }
    }
    Ok(())
}

/// Rank of a listener on `own` for connections to `ip`; `None` if it does not accept them. One on
/// `::` is considered to accept IPv4, too: the table does not have `IPV6_V6ONLY`. If another
/// listener accepts IPv4, it ranks higher; the kernel allows both only if the one on `::` does not.
fn accepts(own: IpAddr, ip: IpAddr) -> Option<u8> {
    match own {
        _ if own == ip => Some(2),
        IpAddr::V4(any) if any.is_unspecified() && ip.is_ipv4() => Some(1),
        IpAddr::V6(any) if any.is_unspecified() => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_listener_ranks_highest() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let rank = |own, to| accepts(ip(own), ip(to));
        assert!(rank("127.0.0.1", "127.0.0.1") > rank("0.0.0.0", "127.0.0.1"));
        assert!(rank("0.0.0.0", "127.0.0.1") > rank("::", "127.0.0.1"));
        assert_eq!(rank("::1", "127.0.0.1"), None);
        assert_eq!(rank("0.0.0.0", "::1"), None);
        assert_eq!(rank("192.0.2.1", "127.0.0.1"), None);
    }
}
