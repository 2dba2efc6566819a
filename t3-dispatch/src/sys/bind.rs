//! Listening sockets.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

use crate::sys::receive_buffer;

const BACKLOG: i32 = 4096;

/// Listens on `address`.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // [::] also accepts IPv4, whatever the default of the system.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    adopt(socket.into())
}

/// Registers a listening socket with the event loop.
///
/// # Errors
/// When the registration fails.
pub fn adopt(listener: StdListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    // Accepted sockets inherit it.
    SockRef::from(&listener).set_recv_buffer_size(receive_buffer::SMALL as usize)?;
    TcpListener::from_std(listener)
}
