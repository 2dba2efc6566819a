//! WebSocket frames (RFC 6455 section 5.2) as bytes: encoder of valid and invalid frames, and
//! decoder. No IO.
//!
//! Independent of dispatch's frame scanner, so that each checks the other.

/// Opcodes of RFC 6455 section 11.8.
pub mod opcode {
    pub const TEXT: u8 = 0x1;
    pub const BINARY: u8 = 0x2;
    pub const CLOSE: u8 = 0x8;
    pub const PING: u8 = 0x9;
    pub const PONG: u8 = 0xA;
}

/// Heartbeat of the client.
pub const HEARTBEAT: &str = r#"{"_tag":"Ping"}"#;
/// serve's reply to it.
pub const HEARTBEAT_ANSWER: &str = r#"{"_tag":"Pong"}"#;

/// A fixed mask, so that tests get the same bytes each time.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A decoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The last frame of its message.
    pub fin: bool,
    /// RSV1: the message is compressed (RFC 7692 section 6).
    pub is_compressed: bool,
    /// The opcode's four bits.
    pub opcode: u8,
    /// The payload, unmasked.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Status code and reason of a Close frame.
    #[must_use]
    pub fn close(&self) -> Option<(Option<u16>, String)> {
        (self.opcode == opcode::CLOSE).then(|| match self.payload.split_first_chunk::<2>() {
            Some((code, reason)) => {
                (Some(u16::from_be_bytes(*code)), String::from_utf8_lossy(reason).into_owned())
            }
            None => (None, String::new()),
        })
    }
}

/// A frame's header up to the mask.
#[must_use]
pub fn header(first: u8, length: usize, masked: bool) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    #[expect(clippy::cast_possible_truncation, reason = "the patterns bound it")]
    match length {
        0..=125 => vec![first, bit | length as u8],
        126..=0xffff => [&[first, bit | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, bit | 127][..], &(length as u64).to_be_bytes()].concat(),
    }
}

/// A frame with this first byte; a client's frame is masked.
#[must_use]
pub fn raw(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut out = header(first, payload.len(), masked);
    if masked {
        out.extend_from_slice(&MASK);
        out.extend_from_slice(payload);
        let start = out.len() - payload.len();
        // Eight bytes at a time: tests without optimisation mask megabytes.
        let (words, rest) = out[start..].as_chunks_mut::<8>();
        let [a, b, c, d] = MASK;
        let mask = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ mask).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(MASK.into_iter().cycle()) {
            *byte ^= mask;
        }
    } else {
        out.extend_from_slice(payload);
    }
    out
}

/// The first half of a text frame.
#[must_use]
pub fn half(masked: bool) -> Vec<u8> {
    let mut frame = raw(0x80 | opcode::TEXT, &[b'x'; 100], masked);
    frame.truncate(50);
    frame
}

/// Lengths of the header, its mask included, and of the payload of the frame at the start of these
/// bytes, once the header is complete.
#[must_use]
pub fn lengths(bytes: &[u8]) -> Option<(usize, u64)> {
    let [_, second, rest @ ..] = bytes else { return None };
    let (header, length) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    let header = if second & 0x80 == 0 { header } else { header + MASK.len() };
    (bytes.len() >= header).then_some((header, length))
}

/// A valid frame of a client.
#[must_use]
pub fn from_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    raw(0x80 | opcode, payload, true)
}

/// A valid frame of a server.
#[must_use]
pub fn from_server(opcode: u8, payload: &[u8]) -> Vec<u8> {
    raw(0x80 | opcode, payload, false)
}

/// The payload of a Close frame; empty without a code.
#[must_use]
pub fn close_payload(code: Option<u16>, reason: &str) -> Vec<u8> {
    code.map_or_else(Vec::new, |code| [&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

/// Decodes a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Reader {
    pending: Vec<u8>,
}

impl Reader {
    /// Returns the frames that these bytes complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.pending.extend_from_slice(bytes);
        std::iter::from_fn(|| self.next_frame()).collect()
    }

    /// Whether the last frame is incomplete.
    #[must_use]
    pub fn inside_frame(&self) -> bool {
        !self.pending.is_empty()
    }

    fn next_frame(&mut self) -> Option<Frame> {
        let (header, length) = lengths(&self.pending)?;
        let end = header.checked_add(usize::try_from(length).ok()?)?;
        let (header, payload) = self.pending.get(..end)?.split_at(header);
        let mask = if header[1] & 0x80 == 0 { None } else { header.last_chunk() };
        let mask: [u8; 4] = mask.copied().unwrap_or_default();
        let frame = Frame {
            fin: header[0] & 0x80 != 0,
            is_compressed: header[0] & 0x40 != 0,
            opcode: header[0] & 0x0f,
            payload: payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect(),
        };
        self.pending.drain(..end);
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_form_read_back_in_any_pieces() {
        for len in [0, 1, 125, 126, 127, 0xffff, 0x1_0000] {
            let payload: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            for masked in [true, false] {
                let bytes = raw(0x80 | opcode::BINARY, &payload, masked);
                for cut in [0, 1, 2, 3, 5, 9, 13].into_iter().filter(|cut| *cut < bytes.len()) {
                    let mut reader = Reader::default();
                    assert!(reader.feed(&bytes[..cut]).is_empty(), "{len} {masked} {cut}");
                    let frames = reader.feed(&bytes[cut..]);
                    assert_eq!(frames.len(), 1, "{len} {masked} {cut}");
                    assert_eq!(frames[0].payload, payload);
                    assert!(!reader.inside_frame());
                }
            }
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6455 section 5.7: "Hello" masked with 37 fa 21 3d.
        let bytes = from_client(opcode::TEXT, b"Hello");
        assert_eq!(bytes, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn close_frames_carry_code_and_reason() {
        let bytes = from_server(opcode::CLOSE, &close_payload(Some(1011), "oh"));
        let frames = Reader::default().feed(&bytes);
        assert_eq!(frames[0].close(), Some((Some(1011), "oh".to_owned())));
        let empty = Reader::default().feed(&from_server(opcode::CLOSE, b""));
        assert_eq!(empty[0].close(), Some((None, String::new())));
    }
}
