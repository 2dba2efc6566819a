//! What is known of a WebSocket on a port where Close frames are read.

use crate::frames::Stream;

/// A call of one of the functions.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Call {
    /// Who called; 0 for nobody.
    pub task: u64,
    pub at: u64,
    /// The `struct msghdr`.
    pub message: u64,
    /// Bytes of its buffer.
    pub count: u64,
    /// The place in user memory that is read next, and how many bytes are there in a row.
    pub address: u64,
    pub in_segment: u64,
    /// The `struct iovec` after them, how many there are, and bytes to leave out of the first.
    pub segment: u64,
    pub segments: u64,
    pub offset: u64,
    /// Bytes of the call that are still to be followed.
    pub left: u64,
    /// The kernel's counter at its start.
    pub start: u32,
    /// It can be read.
    pub is_readable: u32,
}

/// A connection to a port where Close frames are read: the value of `WEBSOCKETS`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Conversation {
    /// When the connection was established.
    pub generation: u64,
    /// What came in, and what was sent.
    pub received: Stream,
    pub sent: Stream,
    pub receiving: Call,
    pub sending: Call,
    pub received_at: u64,
    pub sent_at: u64,
    /// The handshake has been seen.
    pub is_open: u32,
    pub pad: u32,
}

/// No call is in progress.
pub const NO_CALL: Call = Call {
    task: 0,
    at: 0,
    message: 0,
    count: 0,
    address: 0,
    in_segment: 0,
    segment: 0,
    segments: 0,
    offset: 0,
    left: 0,
    start: 0,
    is_readable: 0,
};

impl Call {
    /// Bytes that are there in a row.
    #[inline(always)]
    pub fn there(&self) -> u64 {
        if self.in_segment < self.left { self.in_segment } else { self.left }
    }

    #[inline(always)]
    pub fn advance(&mut self, by: u64) {
        self.address += by;
        self.in_segment -= by;
        self.left -= by;
    }
}
