//! Receive buffer of a session's upstream socket.
//!
//! A sender whose bytes are not read fills the receive buffer of each socket, so all sessions
//! together are bounded by a small one. With a small one, serve waits for an acknowledgement after
//! two packets of 64 KiB on the loopback, and dispatch sends one with nearly each read: bulk data
//! then costs a third more CPU (docs/PERFORMANCE.md). So the first sessions have a large buffer,
//! and those beyond a number a small one.

use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::net::sockopt::socket_recv_buffer_size;

/// Size of a small receive buffer in bytes; the kernel doubles it for its own data (socket(7),
/// `SO_RCVBUF`). Without a limit, a sender whose bytes are not read could fill `tcp_rmem[2]`, 6 to
/// 32 MiB.
pub const SMALL: u32 = 128 * 1024;
/// Size of a large one.
const LARGE: u32 = 512 * 1024;
/// Sockets that have a large one at the same time.
const MOST: usize = 32;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// Receive buffer of one socket, for as long as the socket is open.
#[derive(Debug)]
#[must_use]
pub struct ReceiveBuffer {
    is_large: bool,
}

impl ReceiveBuffer {
    /// A large one, if not too many are in use.
    pub fn reserve() -> Self {
        let free = |in_use| (in_use < MOST).then_some(in_use + 1);
        Self { is_large: IN_USE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).is_ok() }
    }

    /// That of a socket of the process before, which has its size already.
    pub fn of(socket: &impl AsFd) -> Self {
        let is_large = socket_recv_buffer_size(socket).is_ok_and(|size| size > 2 * SMALL as usize);
        if is_large {
            IN_USE.fetch_add(1, Ordering::Relaxed);
        }
        Self { is_large }
    }

    /// Size in bytes.
    #[must_use]
    pub const fn size(&self) -> u32 {
        if self.is_large { LARGE } else { SMALL }
    }
}

impl Drop for ReceiveBuffer {
    fn drop(&mut self) {
        if self.is_large {
            IN_USE.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketType, socket, sockopt::set_socket_recv_buffer_size};

    use super::*;

    /// One test, because the count is of the process.
    #[test]
    fn the_number_of_large_buffers_is_limited() {
        let first: Vec<_> = (0..MOST).map(|_| ReceiveBuffer::reserve()).collect();
        assert!(first.iter().all(|buffer| buffer.size() == LARGE));
        assert_eq!(ReceiveBuffer::reserve().size(), SMALL);
        drop(first);
        let again = ReceiveBuffer::reserve();
        assert_eq!(again.size(), LARGE);
        drop(again);

        let of_size = |size: u32| {
            let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            set_socket_recv_buffer_size(&socket, size as usize).unwrap();
            ReceiveBuffer::of(&socket)
        };
        let limit: usize =
            std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap().trim().parse().unwrap();
        let inherited: Vec<_> = (0..=MOST).map(|_| of_size(LARGE)).collect();
        let expected = if limit > SMALL as usize { LARGE } else { SMALL };
        assert!(inherited.iter().all(|buffer| buffer.size() == expected));
        assert_eq!(ReceiveBuffer::reserve().size(), if expected == LARGE { SMALL } else { LARGE });
        assert_eq!(of_size(SMALL).size(), SMALL);
        drop(inherited);
        assert_eq!(IN_USE.load(Ordering::Relaxed), 0);
    }
}
