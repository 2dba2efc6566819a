//! A close in the list of the screen.

use t3_record::{CloseRecord, TcpCloseRecord};

/// One close.
#[derive(Debug, Clone)]
pub struct Close {
    /// Position in the order of arrival.
    pub seq: u64,
    /// Time in seconds since the epoch.
    pub at: u64,
    /// The record; of a connection that t3-dispatch did not carry, what a `ws close` would have.
    pub record: Box<CloseRecord>,
    /// Set for such a connection.
    pub direct: Option<Box<TcpCloseRecord>>,
}
