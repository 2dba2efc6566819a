//! Result of a lookup of a socket: its owner and state.

/// Socket of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOwner {
    /// User of the process that created or accepted it.
    pub uid: u32,
    /// Inode; 0 if no process holds it: not accepted yet, or closed.
    pub inode: u64,
    pub state: State,
}

/// State of a socket, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Listen,
    /// Connected, in both directions or in one.
    Connected,
    /// Its owner has sent FIN.
    Closing,
}

impl State {
    /// Converts a number of `include/net/tcp_states.h`; `None` for a socket without an owner.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            10 => Some(Self::Listen),
            // ESTABLISHED, SYN_RECV, CLOSE_WAIT, NEW_SYN_RECV. A socket in SYN_SENT is not the
            // other end of an existing connection: its addresses have been used again.
            1 | 3 | 8 | 12 => Some(Self::Connected),
            // FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING.
            4 | 5 | 9 | 11 => Some(Self::Closing),
            _ => None,
        }
    }
}
