//! Socket options of one TCP leg.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use rustix::{io::Errno, net::sockopt};
use socket2::{Protocol, SockRef};
use t3_record::{evidence::SeenEnd, wire::Leg};
use tokio::net::TcpStream;

use crate::sys::recv;

/// Keepalive and TCP_USER_TIMEOUT of a leg.
#[derive(Debug, Clone, Copy)]
pub struct TcpTimeouts {
    /// Idle time before keepalive probes start, and the interval between them.
    pub keepalive: Duration,
    /// `TCP_USER_TIMEOUT`: how long sent data or probes may stay unacknowledged (tcp(7)).
    pub user_timeout: Duration,
}

/// Bytes that wait in a socket for the peer's window, without those in flight: what a peer that
/// does not read keeps in the kernel.
const UNSENT: u32 = 128 * 1024;

/// Sets TCP_NODELAY, keepalive, TCP_USER_TIMEOUT, the limit of unsent bytes and the options of
/// [`recv`]. What an MPTCP socket does not know is left out.
///
/// # Errors
/// The kernel's error for the first option that fails.
pub fn prepare(stream: &(impl AsFd + AsRawFd), timeouts: &TcpTimeouts) -> io::Result<()> {
    sockopt::set_tcp_nodelay(stream, true)?;
    if_known(set_unsent(stream))?;
    if !timeouts.keepalive.is_zero() {
        sockopt::set_socket_keepalive(stream, true)?;
        if_known(sockopt::set_tcp_keepidle(stream, timeouts.keepalive))?;
        if_known(sockopt::set_tcp_keepintvl(stream, timeouts.keepalive))?;
    }
    if_known(sockopt::set_tcp_user_timeout(stream, millis(timeouts.user_timeout)))?;
    recv::prepare(stream);
    Ok(())
}

/// As [`prepare`] for a listener, whose connections inherit the options. It may have those of an
/// earlier process.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_listener(listener: &(impl AsFd + AsRawFd), timeouts: &TcpTimeouts) -> io::Result<()> {
    prepare(listener, timeouts)?;
    sockopt::set_socket_keepalive(listener, !timeouts.keepalive.is_zero())?;
    Ok(())
}

/// Returns whether a socket has the options of [`prepare_listener`].
#[must_use]
pub fn is_prepared(socket: &(impl AsFd + AsRawFd), timeouts: &TcpTimeouts) -> bool {
    has_options(socket, timeouts).unwrap_or(false) && recv::is_prepared(socket)
}

fn has_options(socket: &impl AsFd, timeouts: &TcpTimeouts) -> io::Result<bool> {
    // The kernel counts whole seconds.
    let keepalive = timeouts.keepalive.as_secs() + u64::from(timeouts.keepalive.subsec_nanos() > 0);
    let keepalive = Duration::from_secs(keepalive);
    let has_keepalive = sockopt::socket_keepalive(socket)? != keepalive.is_zero()
        && (keepalive.is_zero()
            || (sockopt::tcp_keepidle(socket)? == keepalive && sockopt::tcp_keepintvl(socket)? == keepalive));
    Ok(sockopt::tcp_nodelay(socket)?
        && SockRef::from(socket).tcp_notsent_lowat()? == UNSENT
        && has_keepalive
        && sockopt::tcp_user_timeout(socket)? == millis(timeouts.user_timeout))
}

/// Returns whether a socket is one of TCP and not of MPTCP.
#[must_use]
pub fn is_plain(socket: &impl AsFd) -> bool {
    matches!(SockRef::from(socket).protocol(), Ok(Some(Protocol::TCP)))
}

fn millis(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX)
}

fn set_unsent(stream: &impl AsFd) -> rustix::io::Result<()> {
    let set = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
    set.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Ignores that the kind of socket does not have an option. Every TCP socket has these.
fn if_known(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::NOPROTOOPT | Errno::OPNOTSUPP) => Ok(()),
        result => Ok(result?),
    }
}

/// Returns the cookie of a socket, with its addresses. Reading `SO_COOKIE` also generates it; eBPF
/// programs cannot do that.
///
/// # Errors
/// As `getsockopt`.
pub fn leg(stream: &TcpStream, local: SocketAddr, remote: SocketAddr) -> io::Result<Leg> {
    let cookie = sockopt::socket_cookie(stream)?;
    Ok(Leg { cookie, local: canonical(local), remote: canonical(remote) })
}

/// Returns an IPv4-mapped IPv6 address as IPv4.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Closes with an RST: linger 0 discards unsent data and resets the connection (socket(7),
/// `SO_LINGER`).
pub fn reset(stream: TcpStream) {
    // Fails only on a closed connection, which needs no RST.
    let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    drop(stream);
}

/// Converts an error of read, write or connect.
/// Ends the connection of a socket that another process has open as well, with RST or FIN.
pub fn end_shared(stream: &TcpStream, is_reset: bool) {
    if is_reset {
        // As the close with SO_LINGER 0, `connect` to no address ends in `tcp_disconnect`
        // (net/ipv4/tcp.c), which sends RST. Fails only on a closed connection.
        let _ = rustix::net::connect_unspec(stream);
    } else {
        let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Write);
    }
}

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
