//! Frame lengths and frame ends of RFC 6455, for both ends of the benchmark. No IO.
//!
//! Payloads are skipped, not unmasked, so that the ends use little CPU.

use crate::frame;

/// Length of the longest header: two bytes, eight of length, four of mask.
const LONGEST: usize = 14;

/// Length in bytes of a server's (unmasked) frame with this payload length.
#[must_use]
pub fn server_frame(payload: u64) -> u64 {
    payload
        + match payload {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        }
}

/// Finds the end of each frame in a stream.
#[derive(Debug, Default)]
pub struct Skipper {
    header: [u8; LONGEST],
    have: usize,
    /// Inside a payload: its length and the remaining bytes.
    inside: Option<(u64, u64)>,
}

impl Skipper {
    /// Reads bytes of the stream; calls `ended` with the payload length of each completed frame.
    pub fn feed(&mut self, mut bytes: &[u8], mut ended: impl FnMut(u64)) {
        loop {
            if let Some((length, left)) = self.inside {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                bytes = bytes.get(here..).unwrap_or_default();
                let left = left - here as u64;
                if left > 0 {
                    self.inside = Some((length, left));
                    return;
                }
                self.inside = None;
                ended(length);
            }
            let Some((byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            if let Some(place) = self.header.get_mut(self.have) {
                *place = *byte;
                self.have += 1;
            }
            let header = self.header.get(..self.have).unwrap_or_default();
            if let Some((_, length)) = frame::lengths(header) {
                self.have = 0;
                self.inside = Some((length, length));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{from_client, from_server, opcode};

    const LENGTHS: [usize; 9] = [0, 1, 15, 125, 126, 127, 0xffff, 0x1_0000, 3];

    #[test]
    fn every_frame_end_is_found_in_pieces_of_any_size() {
        let mut stream = Vec::new();
        for length in LENGTHS {
            stream.extend(from_client(opcode::TEXT, &vec![b'x'; length]));
            stream.extend(from_server(opcode::BINARY, &vec![0xff; length]));
        }
        let expected: Vec<u64> = LENGTHS.iter().flat_map(|length| [*length as u64; 2]).collect();
        for piece in [1, 2, 3, 7, 1000, stream.len()] {
            let (mut skipper, mut seen) = (Skipper::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                skipper.feed(bytes, |length| seen.push(length));
            }
            assert_eq!(seen, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_servers_frame_has_the_computed_length() {
        for length in LENGTHS {
            let bytes = from_server(opcode::TEXT, &vec![b'x'; length]);
            assert_eq!(bytes.len() as u64, server_frame(length as u64), "payload of {length}");
        }
    }
}
