//! Positions of both directions of a session as bytes: the part of the state that changes with each
//! message. Few bytes between two frames, so that both copies have room in the slot.

use serde::Deserialize;
use t3_record::vocabulary::Side;

use crate::{
    fd_store::layout::slot::POSITIONS_MOST,
    relay::{frames::position, session::Session},
};

/// Most bytes of encoded positions.
pub const MOST: usize = POSITIONS_MOST;
/// Length of the checksum (CRC-32) after the content.
const CHECKSUM: usize = 4;

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

/// Positions as they are encoded: in the format of postcard, in which numbers take as many bytes as
/// they need. Only read with it: it writes each number with a memcpy, 18 for each message.
#[derive(Deserialize)]
struct Encoded<'a> {
    commit: u32,
    flags: u8,
    #[serde(borrow)]
    flows: [EncodedFlow<'a>; 2],
}

#[derive(Deserialize)]
struct EncodedFlow<'a> {
    read: u64,
    /// `written` less `read`, modulo 2^64: near 0.
    written: i64,
    msgs: u64,
    left: u64,
    payload: u64,
    /// As far as it was read.
    header: &'a [u8],
    scanner: u8,
    pending: u32,
    pending_at: u32,
}

impl EncodedFlow<'_> {
    /// `None` for a header that is too long.
    fn position(&self) -> Option<FlowPosition> {
        let mut header = [0; 14];
        header.get_mut(..self.header.len())?.copy_from_slice(self.header);
        let Self { read, written, msgs, left, payload, scanner: flags, pending, pending_at, .. } = *self;
        let header_have = u8::try_from(self.header.len()).ok()?;
        let scanner = position::Position { left, payload, header, header_have, flags };
        let written = read.wrapping_add(written.cast_unsigned());
        Some(FlowPosition { read, written, msgs, scanner, pending, pending_at, ..FlowPosition::default() })
    }
}

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
                pending_at: flow.pending_at,
                ended: flow.ended,
                failed: flow.failed,
                end_forwarded: flow.end_forwarded,
            }
        };
        Self { commit, flows: [flow(Side::Down), flow(Side::Up)] }
    }

    /// Writes the positions to `bytes` and returns their length; 0 if they do not fit, which does
    /// not occur: the longest take fewer than [`MOST`].
    pub fn encode(&self, bytes: &mut [u8; MOST]) -> usize {
        let bits = self.flows.iter().flat_map(|flow| [flow.ended, flow.failed, flow.end_forwarded]);
        let flags = bits.enumerate().fold(0_u8, |flags, (bit, is_set)| flags | u8::from(is_set) << bit);
        let mut to = Writer { bytes, at: 0 };
        to.number(self.commit.into());
        to.byte(flags);
        for flow in &self.flows {
            let FlowPosition { read, written, msgs, scanner, pending, pending_at, .. } = flow;
            to.number(*read);
            to.signed(written.wrapping_sub(*read).cast_signed());
            to.number(*msgs);
            to.number(scanner.left);
            to.number(scanner.payload);
            let header = scanner.header.get(..scanner.header_have.into()).unwrap_or(&scanner.header);
            to.number(header.len() as u64);
            header.iter().for_each(|byte| to.byte(*byte));
            to.byte(scanner.flags);
            to.number((*pending).into());
            to.number((*pending_at).into());
        }
        let length = to.at;
        seal(bytes, length)
    }

    /// Reads the result of [`Positions::encode`]; `None` if a byte has changed.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
        if crc32fast::hash(content).to_ne_bytes() != *checksum {
            return None;
        }
        let (encoded, rest) = postcard::take_from_bytes::<Encoded<'_>>(content).ok()?;
        let [down, up] = &encoded.flows;
        let mut flows = [down.position()?, up.position()?];
        for (n, flow) in flows.iter_mut().enumerate() {
            let bit = |bit: usize| encoded.flags & 1 << (3 * n + bit) != 0;
            (flow.ended, flow.failed, flow.end_forwarded) = (bit(0), bit(1), bit(2));
        }
        rest.is_empty().then_some(Self { commit: encoded.commit, flows })
    }
}

/// Writer of numbers in the format of postcard.
struct Writer<'a> {
    bytes: &'a mut [u8; MOST],
    at: usize,
}

impl Writer<'_> {
    /// Beyond the end nothing is written; [`seal`] notices it.
    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.at) {
            *place = byte;
        }
        self.at += 1;
    }

    /// Seven bits at a time, the lowest first; the highest bit of a byte: more follow.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.byte((number & 0x7f) as u8);
    }

    /// Zigzag: numbers near 0 are small, whatever their sign.
    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned());
    }
}

/// Adds the checksum to a content of `length` bytes and returns the length of both; 0 if it does
/// not fit.
pub fn seal(bytes: &mut [u8; MOST], length: usize) -> usize {
    let (content, rest) = bytes.split_at_mut(length.min(MOST));
    let Some(place) = rest.first_chunk_mut() else { return 0 };
    *place = crc32fast::hash(content).to_ne_bytes();
    length + CHECKSUM
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fd_store::layout::slot as at;

    fn encoded(positions: &Positions) -> Vec<u8> {
        let mut bytes = [0; MOST];
        let length = positions.encode(&mut bytes);
        assert!(length > CHECKSUM);
        bytes[..length].to_vec()
    }

    fn flow() -> impl Strategy<Value = FlowPosition> {
        let numbers = (any::<[u64; 5]>(), any::<[u8; 14]>(), any::<[u8; 2]>(), any::<[u32; 2]>());
        (numbers, any::<[bool; 3]>()).prop_map(|((words, header, bytes, lengths), flags)| FlowPosition {
            read: words[0],
            written: words[1],
            msgs: words[2],
            scanner: position::Position {
                left: words[3],
                payload: words[4],
                // What follows the bytes that were read has no meaning.
                header: std::array::from_fn(|n| if n < usize::from(bytes[0] % 15) { header[n] } else { 0 }),
                header_have: bytes[0] % 15,
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
            prop_assert_eq!(Positions::decode(&encoded(&positions)), Some(positions));
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let bytes = encoded(&Positions::default());
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 4;
            assert_eq!(Positions::decode(&changed), None, "byte {at}");
            assert_eq!(Positions::decode(&bytes[..at]), None, "byte {at}");
        }
    }

    fn scanner(header_have: u8) -> position::Position {
        let mut header = [0; 14];
        header[..header_have.into()].fill(0x88);
        position::Position { left: 19, payload: 20, header, header_have, flags: 9 }
    }

    #[test]
    fn the_longest_positions_fit() {
        let longest = FlowPosition {
            read: u64::MAX,
            written: u64::MAX / 2,
            msgs: u64::MAX,
            scanner: position::Position { left: u64::MAX, payload: u64::MAX, flags: u8::MAX, ..scanner(14) },
            pending: u32::MAX,
            pending_at: u32::MAX,
            ended: true,
            failed: true,
            end_forwarded: true,
        };
        let positions = Positions { commit: u32::MAX, flows: [longest, longest] };
        assert_eq!(Positions::decode(&encoded(&positions)), Some(positions));
        assert!(encoded(&positions).len() <= at::POSITIONS[0].most);
    }

    /// A longer one takes a page of memory for as long as the session is open.
    #[test]
    fn positions_fit_in_the_slot_between_frames_and_inside_a_frame_of_one_peer() {
        let between = FlowPosition {
            read: 50_000_000_000,
            written: 50_000_000_000,
            msgs: 100_000_000,
            scanner: position::Position { left: 0, payload: 100_000, flags: 1, ..scanner(0) },
            ..FlowPosition::default()
        };
        let inside = FlowPosition {
            written: between.written - 65_536,
            scanner: position::Position { left: 1_000_000, payload: 1_000_000, ..scanner(14) },
            pending: 65_536,
            pending_at: 30_000,
            ..between
        };
        for flows in [[between, between], [inside, between]] {
            let length = encoded(&Positions { commit: u32::MAX, flows }).len();
            assert!(length <= at::POSITIONS[0].room, "{length}");
        }
    }

    /// The bytes of version 2 of the layout ([`crate::fd_store::layout::VERSION`]). A change needs
    /// another version.
    #[test]
    fn the_format_is_that_of_its_version() {
        let flow = |n: u64| FlowPosition {
            read: n,
            written: n - 1,
            msgs: n + 2,
            scanner: scanner(2),
            pending: 5,
            pending_at: 6,
            ended: true,
            failed: false,
            end_forwarded: n == 16,
        };
        let bytes = encoded(&Positions { commit: 7, flows: [flow(16), flow(300)] });
        let (content, _) = bytes.split_last_chunk::<CHECKSUM>().unwrap();
        assert_eq!(
            content,
            b"\x07\x0d\
              \x10\x01\x12\x13\x14\x02\x88\x88\x09\x05\x06\
              \xac\x02\x01\xae\x02\x13\x14\x02\x88\x88\x09\x05\x06"
        );
    }
}
