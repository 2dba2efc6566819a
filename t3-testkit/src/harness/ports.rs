//! Free ports, below the range of ephemeral ports so that no outgoing connection takes them.

use std::{
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

use crate::error::{Result, TestError};

const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// The next candidate; concurrent processes start at different ports.
static NEXT: AtomicU16 = AtomicU16::new(0);
/// Reservations of this process, until its end.
static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port without a listener that no test process on this host has, or gets before this one ends:
/// its program may start to listen on it minutes later.
pub fn free() -> Result<u16> {
    let span = LAST - FIRST;
    let start = u16::try_from(std::process::id() * 97 % u32::from(span)).unwrap_or(0);
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % span;
        let port = FIRST + (start + step) % span;
        if let Some(reservation) = reserve(port)
            && TcpListener::bind(("0.0.0.0", port)).is_ok()
        {
            RESERVED.lock().unwrap_or_else(PoisonError::into_inner).push(reservation);
            return Ok(port);
        }
    }
    Err(TestError::Missing {
        what: format!("a free port from {FIRST} to {LAST}"),
        remedy: "stop other programs that listen there".to_owned(),
    })
}

/// An abstract Unix socket in the same network namespace (unix(7)): it is gone with its process.
fn reserve(port: u16) -> Option<UnixListener> {
    let address = SocketAddr::from_abstract_name(format!("t3-testkit-port-{port}")).ok()?;
    UnixListener::bind_addr(&address).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_another_process_is_not_returned() {
        let first = free().unwrap();
        assert!(reserve(first).is_none(), "reserved until the end");
        let others: Vec<_> = (1..20).filter_map(|n| reserve(first + n)).collect();
        assert!(!others.is_empty());
        let next = free().unwrap();
        assert!(next >= first + 20 || next < first, "{first}, then {next}");
    }
}
