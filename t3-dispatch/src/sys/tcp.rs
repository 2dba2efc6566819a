//! Socket options of one TCP leg.

use std::{io, net::SocketAddr, time::Duration};

use rustix::net::sockopt;
use t3_record::{evidence::SeenEnd, wire::Leg};
use tokio::net::TcpStream;

/// Keepalive and TCP_USER_TIMEOUT of a leg.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Idle time before keepalive probes start, and the interval between them.
    pub keepalive: Duration,
    /// `TCP_USER_TIMEOUT`: how long sent data or probes may stay unacknowledged (tcp(7)).
    pub user_timeout: Duration,
}

/// Sets what every leg has: no delay, keepalive, user timeout.
///
/// # Errors
/// The option that could not be set, as the kernel says.
pub fn prepare(stream: &TcpStream, patience: &Patience) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if !patience.keepalive.is_zero() {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, patience.keepalive)?;
        sockopt::set_tcp_keepintvl(stream, patience.keepalive)?;
    }
    let millis = u32::try_from(patience.user_timeout.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, millis)?)
}

/// Who this socket is to the kernel. Asking for `SO_COOKIE` also generates it, which programs in
/// the kernel cannot.
///
/// # Errors
/// When the socket has lost its peer already.
pub fn leg(stream: &TcpStream) -> io::Result<Leg> {
    let cookie = sockopt::socket_cookie(stream)?;
    Ok(Leg { cookie, local: canonical(stream.local_addr()?), remote: canonical(stream.peer_addr()?) })
}

/// An IPv4 address that came through an IPv6 socket, as IPv4.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Closes with a RST: linger 0 throws away what was not sent and resets the connection (socket(7),
/// `SO_LINGER`).
pub fn reset(stream: TcpStream) {
    // Fails only on a socket that is dead already; then there is nothing to reset.
    let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    drop(stream);
}

/// What an error of read, write or connect means for a leg.
#[must_use]
pub fn seen_end(error: &io::Error) -> SeenEnd {
    match error.raw_os_error() {
        Some(libc::ECONNRESET) => SeenEnd::Reset,
        Some(libc::EPIPE) => SeenEnd::Pipe,
        Some(libc::ETIMEDOUT) => SeenEnd::Timeout,
        Some(libc::ECONNABORTED) => SeenEnd::Abort,
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => SeenEnd::Unreach,
        Some(libc::ECONNREFUSED) => SeenEnd::Refused,
        Some(errno) => SeenEnd::Errno(errno),
        None => SeenEnd::Errno(libc::EIO),
    }
}
