//! Listening sockets on serve's port.

use serde::{Deserialize, Serialize};

/// Listening sockets on serve's port at a failed connect, from the tables of dispatch's network
/// namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    /// Length of the accept queue of the socket that accepts connections to serve's address;
    /// `None` without such a socket.
    pub queue: Option<u32>,
    /// A socket listens on the port on another address.
    pub elsewhere: bool,
    /// An accept queue of the namespace was full while dispatch connected (`ListenOverflows` of
    /// `/proc/net/netstat`); `None` if that was not observed.
    pub overflowed: Option<bool>,
}
