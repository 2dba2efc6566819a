//! The last records on the evidence socket, which are sent again on the next connection.
//!
//! As they were sent, in one buffer: they outlive their sessions for an unlimited time, and
//! hundreds of records with their texts would keep as many pages of the allocator.

use std::collections::VecDeque;

use t3_record::wire::ToTrace;

/// Records. t3-trace may end before it has read them, or before they are in its spool. A socket
/// holds about 100 (`net.core.wmem_default`).
const MOST: usize = 256;

/// The last messages of [`ToTrace::Done`], oldest first.
#[derive(Debug, Default)]
pub(super) struct RecentRecords {
    bytes: VecDeque<u8>,
    lengths: VecDeque<usize>,
}

impl RecentRecords {
    /// Adds an encoded message; the oldest is forgotten if there are too many.
    pub(super) fn push(&mut self, message: &[u8]) {
        if self.lengths.len() >= MOST
            && let Some(length) = self.lengths.pop_front()
        {
            self.bytes.drain(..length);
        }
        self.bytes.extend(message);
        self.lengths.push_back(message.len());
    }

    /// Removes and returns the messages, marked as sent again.
    pub(super) fn take(&mut self) -> Vec<ToTrace> {
        let lengths = std::mem::take(&mut self.lengths);
        let again = |length| {
            let bytes: Vec<u8> = self.bytes.drain(..length).collect();
            match serde_json::from_slice(&bytes) {
                Ok(ToTrace::Done { conn, record, lost, .. }) => {
                    Some(ToTrace::Done { conn, record, lost, again: true })
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::error!(%error, "cannot decode a record that was sent to t3-trace; it is not sent again");
                    None
                }
            }
        };
        lengths.into_iter().filter_map(again).collect()
    }
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, CloseRecord, KernelSource, Segment, Verdict};

    use super::*;

    fn done(conn: &str, again: bool) -> ToTrace {
        let record = CloseRecord::new(
            "ann".to_owned(),
            "192.0.2.7".to_owned(),
            1000,
            Cause::Graceful,
            Verdict::ClientClosed,
            Segment::Downstream,
            conn.to_owned(),
            KernelSource::Off,
        );
        ToTrace::Done { conn: conn.to_owned(), record: Box::new(record), lost: conn.len() == 3, again }
    }

    #[test]
    fn the_last_records_are_returned_once_and_marked() {
        let mut recent = RecentRecords::default();
        for n in 0..MOST + 30 {
            recent.push(&serde_json::to_vec(&done(&n.to_string(), n % 2 == 0)).unwrap());
        }
        let expected: Vec<_> = (30..MOST + 30).map(|n| done(&n.to_string(), true)).collect();
        assert_eq!(recent.take(), expected);
        assert!(recent.bytes.is_empty() && recent.take().is_empty());
    }
}
