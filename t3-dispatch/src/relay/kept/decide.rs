//! Whether a session can be continued: compares the positions of its last commit with the counters
//! of the kernel. Pure.
//!
//! The relay commits after each read and each write, so at most one read and the writes after it
//! are missing. The kernel counts both: what was read since is in the read buffer, and of that, or
//! of the pending bytes, the part that was written is known. Any other difference means that bytes
//! were lost or would be sent twice.

use crate::{relay::kept::positions::Positions, sys::tcp_counters::StreamCounters};

/// What the process before did after its last commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uncommitted {
    /// Direction and length of the last read.
    pub read: Option<(usize, usize)>,
    /// Bytes written in each direction.
    pub written: [usize; 2],
}

/// Why a session cannot be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// More or fewer bytes were read than the state accounts for.
    #[error("the kernel and the state differ in the bytes that were read")]
    Read,
    /// More or fewer bytes were written than the state accounts for.
    #[error("the kernel and the state differ in the bytes that were written")]
    Written,
    /// The positions contradict themselves.
    #[error("the positions are impossible")]
    Impossible,
}

/// Compares. `baseline`: the kernel's counters less those of the session (read from the client,
/// from serve; written from the client, from serve). `down` and `up`: counters of the two sockets.
/// `reading`: direction of the last read that began. `limit`: most bytes of a read.
///
/// # Errors
/// [`Lost`].
pub fn decide(
    positions: &Positions,
    baseline: [u64; 4],
    [down, up]: [StreamCounters; 2],
    reading: Option<usize>,
    limit: usize,
) -> Result<Uncommitted, Lost> {
    let mut found = Uncommitted::default();
    for (direction, (source, target)) in [(down, up), (up, down)].into_iter().enumerate() {
        let flow = &positions.flows[direction];
        let pending = u64::from(flow.pending).checked_sub(flow.pending_at.into()).ok_or(Lost::Impossible)?;
        let known_read = flow.read.wrapping_add(baseline[direction]);
        let mut read = source.read.wrapping_sub(known_read);
        // After an RST it is unknown whether the counter includes a FIN; one that was read does.
        if source.is_closed && flow.ended {
            read = 0;
        }
        if read > limit as u64
            || (read > 0 && (reading != Some(direction) || source.is_closed || pending > 0))
        {
            return Err(Lost::Read);
        }
        let known_written = flow.written.wrapping_add(baseline[2 + direction]);
        let mut written = target.written.wrapping_sub(known_written);
        let most = pending + read;
        if target.is_closed {
            // Nothing more arrives there.
            written = if written <= most { written } else { 0 };
        }
        if written > most {
            return Err(Lost::Written);
        }
        let length = |bytes: u64| usize::try_from(bytes).map_err(|_| Lost::Impossible);
        if read > 0 {
            found.read = Some((direction, length(read)?));
        }
        found.written[direction] = length(written)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::kept::positions::FlowPosition;

    const LIMIT: usize = 1000;
    const BASELINE: [u64; 4] = [10, 20, u64::MAX, 40];

    fn counters(read: u64, written: u64) -> StreamCounters {
        StreamCounters { read, written, is_closed: false }
    }

    /// The client has sent 100 bytes, of which 70 are written to serve; serve has sent 50.
    fn positions() -> Positions {
        let down =
            FlowPosition { read: 100, written: 70, pending: 40, pending_at: 10, ..FlowPosition::default() };
        let up = FlowPosition { read: 50, written: 50, ..FlowPosition::default() };
        Positions { flows: [down, up], ..Positions::default() }
    }

    /// Counters of the kernel: read from the client, written to the client, read from serve,
    /// written to serve, as the session counts them.
    fn decide_with(kernel: [u64; 4], reading: Option<usize>) -> Result<Uncommitted, Lost> {
        let [from_client, to_client, from_serve, to_serve] = kernel;
        let down = counters(from_client.wrapping_add(BASELINE[0]), to_client.wrapping_add(BASELINE[3]));
        let up = counters(from_serve.wrapping_add(BASELINE[1]), to_serve.wrapping_add(BASELINE[2]));
        decide(&positions(), BASELINE, [down, up], reading, LIMIT)
    }

    #[test]
    fn only_what_the_relay_can_have_done_is_continued() {
        let found = |read, written| Ok(Uncommitted { read, written });
        for (kernel, reading, expected) in [
            ([100, 50, 50, 70], None, found(None, [0, 0])),
            ([100, 50, 50, 70], Some(1), found(None, [0, 0])),
            // Part of the pending bytes, and all of them, were written.
            ([100, 50, 50, 85], None, found(None, [15, 0])),
            ([100, 50, 50, 100], None, found(None, [30, 0])),
            ([100, 50, 50, 101], None, Err(Lost::Written)),
            ([100, 50, 50, 69], None, Err(Lost::Written)),
            // Read from serve, and written to the client in part.
            ([100, 50, 55, 70], Some(1), found(Some((1, 5)), [0, 0])),
            ([100, 53, 55, 70], Some(1), found(Some((1, 5)), [0, 3])),
            ([100, 55, 55, 70], Some(1), found(Some((1, 5)), [0, 5])),
            ([100, 56, 55, 70], Some(1), Err(Lost::Written)),
            ([100, 50, 55, 70], Some(0), Err(Lost::Read)),
            ([100, 50, 55, 70], None, Err(Lost::Read)),
            ([100, 50, 1051, 70], Some(1), Err(Lost::Read)),
            ([100, 50, 49, 70], Some(1), Err(Lost::Read)),
            // The relay does not read while bytes of that direction are pending.
            ([101, 50, 50, 70], Some(0), Err(Lost::Read)),
        ] {
            assert_eq!(decide_with(kernel, reading), expected, "{kernel:?} {reading:?}");
        }
    }

    #[test]
    fn after_an_rst_only_certain_bytes_are_read_again() {
        let closed = |counters: StreamCounters| StreamCounters { is_closed: true, ..counters };
        let (down, up) = (counters(110, 90), counters(70, 69));
        let with = |positions: &Positions, down, up| decide(positions, BASELINE, [down, up], Some(0), LIMIT);
        let mut positions = positions();
        positions.flows[0] = FlowPosition { read: 100, written: 70, pending: 30, ..FlowPosition::default() };
        assert_eq!(with(&positions, down, up), Ok(Uncommitted::default()));
        assert_eq!(with(&positions, closed(counters(111, 90)), up), Err(Lost::Read), "a FIN or a byte");
        positions.flows[0].ended = true;
        assert_eq!(with(&positions, closed(counters(111, 90)), up), Ok(Uncommitted::default()));
        // serve is gone: bytes for it are no longer counted.
        assert_eq!(with(&positions, down, closed(counters(70, 5))), Ok(Uncommitted::default()));
    }

    #[test]
    fn impossible_positions_are_refused() {
        let mut positions = positions();
        positions.flows[1].pending_at = 1;
        let same = [counters(110, 90), counters(70, 69)];
        assert_eq!(decide(&positions, BASELINE, same, None, LIMIT), Err(Lost::Impossible));
    }
}
