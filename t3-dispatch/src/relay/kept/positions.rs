//! Positions of both directions of a session as bytes of a fixed length: the part of the state that
//! changes with each message.

use t3_record::vocabulary::Side;

use crate::{
    fd_store::slot::POSITIONS,
    relay::{frames::position, session::Session},
};

/// Position of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowPosition {
    /// Bytes read from the source.
    pub read: u64,
    /// Bytes written to the other leg.
    pub written: u64,
    /// Messages read from the source.
    pub msgs: u64,
    /// Position in the stream of frames.
    pub scanner: position::Position,
    /// Bytes read and kept for the other leg, with those written since.
    pub pending: u32,
    /// How many of them were written.
    pub pending_at: u32,
    /// Reading has ended.
    pub ended: bool,
    /// The source failed.
    pub failed: bool,
    /// The end was forwarded to the other leg.
    pub end_forwarded: bool,
}

/// Positions of a session after a number of commits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Positions {
    /// Number of this commit.
    pub commit: u32,
    /// From the client, and from serve.
    pub flows: [FlowPosition; 2],
}

/// Index of the direction that begins at a side.
#[must_use]
pub const fn index(side: Side) -> usize {
    match side {
        Side::Down => 0,
        Side::Up => 1,
    }
}

const FLOW: usize = 8 * 5 + 14 + 2 + 4 + 4;

impl Positions {
    /// The positions of a session.
    #[must_use]
    pub fn of(session: &Session, commit: u32) -> Self {
        let flow = |side| {
            let (flow, facts) = (session.flow(side), session.facts.leg(side));
            FlowPosition {
                read: facts.bytes,
                written: flow.written,
                msgs: facts.msgs,
                scanner: flow.scanner.position(),
                pending: u32::try_from(flow.pending.len()).unwrap_or(u32::MAX),
                pending_at: u32::try_from(flow.pending_at).unwrap_or(u32::MAX),
                ended: flow.ended,
                failed: flow.failed,
                end_forwarded: flow.end_forwarded,
            }
        };
        Self { commit, flows: [flow(Side::Down), flow(Side::Up)] }
    }

    /// The positions as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; POSITIONS] {
        let mut bytes = [0; POSITIONS];
        let mut at = Writer { bytes: &mut bytes, at: 0 };
        at.put(self.commit.to_ne_bytes());
        let bits = self.flows.iter().flat_map(|flow| [flow.ended, flow.failed, flow.end_forwarded]);
        let flags = bits.enumerate().fold(0_u32, |flags, (bit, is_set)| flags | u32::from(is_set) << bit);
        at.put(flags.to_ne_bytes());
        for flow in &self.flows {
            at.put(flow.read.to_ne_bytes());
            at.put(flow.written.to_ne_bytes());
            at.put(flow.msgs.to_ne_bytes());
            at.put(flow.scanner.left.to_ne_bytes());
            at.put(flow.scanner.payload.to_ne_bytes());
            at.put(flow.scanner.header);
            at.put([flow.scanner.header_have, flow.scanner.flags]);
            at.put(flow.pending.to_ne_bytes());
            at.put(flow.pending_at.to_ne_bytes());
        }
        seal(&mut bytes);
        bytes
    }

    /// Reads what [`Positions::encode`] wrote; `None` if a byte has changed.
    #[must_use]
    pub fn decode(bytes: &[u8; POSITIONS]) -> Option<Self> {
        if crc32fast::hash(&bytes[..CONTENT]).to_ne_bytes() != bytes[CONTENT..] {
            return None;
        }
        let mut at = Reader { bytes, at: 0 };
        let commit = u32::from_ne_bytes(at.take());
        let flags = u32::from_ne_bytes(at.take());
        let mut positions = Self { commit, ..Self::default() };
        for (n, flow) in positions.flows.iter_mut().enumerate() {
            let bit = |bit: usize| flags & 1 << (3 * n + bit) != 0;
            (flow.ended, flow.failed, flow.end_forwarded) = (bit(0), bit(1), bit(2));
            flow.read = u64::from_ne_bytes(at.take());
            flow.written = u64::from_ne_bytes(at.take());
            flow.msgs = u64::from_ne_bytes(at.take());
            flow.scanner.left = u64::from_ne_bytes(at.take());
            flow.scanner.payload = u64::from_ne_bytes(at.take());
            flow.scanner.header = at.take();
            [flow.scanner.header_have, flow.scanner.flags] = at.take();
            flow.pending = u32::from_ne_bytes(at.take());
            flow.pending_at = u32::from_ne_bytes(at.take());
        }
        Some(positions)
    }
}

/// Writes the checksum.
pub fn seal(bytes: &mut [u8; POSITIONS]) {
    let checksum = crc32fast::hash(&bytes[..CONTENT]);
    bytes[CONTENT..].copy_from_slice(&checksum.to_ne_bytes());
}

/// Bytes before the checksum (CRC-32).
const CONTENT: usize = POSITIONS - 4;

const _: () = assert!(8 + 2 * FLOW <= CONTENT);

struct Writer<'a> {
    bytes: &'a mut [u8; POSITIONS],
    at: usize,
}

impl Writer<'_> {
    fn put<const N: usize>(&mut self, part: [u8; N]) {
        if let Some(place) = self.bytes.get_mut(self.at..self.at + N) {
            place.copy_from_slice(&part);
        }
        self.at += N;
    }
}

struct Reader<'a> {
    bytes: &'a [u8; POSITIONS],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let part = self.bytes.get(self.at..self.at + N).and_then(|part| part.try_into().ok());
        self.at += N;
        part.unwrap_or([0; N])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flow() -> impl Strategy<Value = FlowPosition> {
        let numbers = (any::<[u64; 5]>(), any::<[u8; 14]>(), any::<[u8; 2]>(), any::<[u32; 2]>());
        (numbers, any::<[bool; 3]>()).prop_map(|((words, header, bytes, lengths), flags)| FlowPosition {
            read: words[0],
            written: words[1],
            msgs: words[2],
            scanner: position::Position {
                left: words[3],
                payload: words[4],
                header,
                header_have: bytes[0],
                flags: bytes[1],
            },
            pending: lengths[0],
            pending_at: lengths[1],
            ended: flags[0],
            failed: flags[1],
            end_forwarded: flags[2],
        })
    }

    proptest! {
        #[test]
        fn positions_are_read_as_written(commit in any::<u32>(), down in flow(), up in flow()) {
            let positions = Positions { commit, flows: [down, up] };
            prop_assert_eq!(Positions::decode(&positions.encode()), Some(positions));
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let bytes = Positions::default().encode();
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 4;
            assert_eq!(Positions::decode(&changed), None, "byte {at}");
        }
    }

    /// The bytes of version 1 of the layout ([`crate::fd_store::layout::VERSION`]). A change needs
    /// another version.
    #[test]
    fn the_format_is_that_of_its_version() {
        let flow = |n: u64| FlowPosition {
            read: n,
            written: n + 1,
            msgs: n + 2,
            scanner: position::Position {
                left: n + 3,
                payload: n + 4,
                header: [0x88; 14],
                header_have: 2,
                flags: 9,
            },
            pending: 5,
            pending_at: 6,
            ended: true,
            failed: false,
            end_forwarded: n == 16,
        };
        let bytes = Positions { commit: 7, flows: [flow(16), flow(32)] }.encode();
        assert_eq!(bytes[..8], [7, 0, 0, 0, 0b000_1101, 0, 0, 0]);
        assert_eq!([bytes[8], bytes[16], bytes[24], bytes[32], bytes[40]], [16, 17, 18, 19, 20]);
        assert_eq!(
            bytes[48..72],
            *b"\x88\x88\x88\x88\x88\x88\x88\x88\x88\x88\x88\x88\x88\x88\x02\x09\x05\0\0\0\x06\0\0\0"
        );
        assert_eq!(bytes[72], 32);
        assert!(bytes[8 + 2 * FLOW..CONTENT].iter().all(|byte| *byte == 0));
    }
}
