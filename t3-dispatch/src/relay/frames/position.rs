//! Position of a scanner in its stream as plain data of a fixed size, from which the scanner of
//! another process continues. The payload that the scanner keeps is separate: it is rarely there.

use super::{FrameScanner, KEPT, Sender, State};

/// Position inside the stream of frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Payload bytes of the frame still to come.
    pub left: u64,
    /// Payload bytes of the frame so far.
    pub payload: u64,
    /// The frame's header as far as it was read.
    pub header: [u8; 14],
    /// Number of bytes in `header`, at most 14.
    pub header_have: u8,
    /// Bits `STATE`, `FRAGMENTED`, `CLOSED` and `KEEPS`.
    pub flags: u8,
}

/// 0: in a header, 1: in a payload, 2: stopped after a breach.
const STATE: u8 = 0b0000_0011;
const FRAGMENTED: u8 = 0b0000_0100;
const CLOSED: u8 = 0b0000_1000;
/// The payload of the current frame is kept.
const KEEPS: u8 = 0b0001_0000;

impl FrameScanner {
    /// The position, without the kept payload ([`FrameScanner::kept`]).
    #[must_use]
    pub fn position(&self) -> Position {
        let state = match self.state {
            State::Header => 0,
            State::Payload => 1,
            State::Stopped => 2,
        };
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        Position {
            left: self.left,
            payload: self.position,
            header: self.header,
            header_have: self.header_have,
            flags: state
                | flag(self.fragmented, FRAGMENTED)
                | flag(self.closed, CLOSED)
                | flag(self.keeps_part(), KEEPS),
        }
    }

    /// Whether part of a payload that is kept has been read.
    #[must_use]
    pub fn keeps_part(&self) -> bool {
        self.keep && self.state == State::Payload && self.position > 0
    }

    /// The part of the current frame's payload that was read, if it is kept.
    #[must_use]
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Continues at a position. Without `kept`, the payload of the current frame is not recognised:
    /// a Close frame then has no code.
    ///
    /// Returns `None` for a position that no scanner has.
    #[must_use]
    pub fn resume(sender: Sender, extended: bool, at: Position, kept: Option<&[u8]>) -> Option<Self> {
        let mut scanner = Self::new(sender, extended);
        scanner.state = match at.flags & STATE {
            0 => State::Header,
            1 => State::Payload,
            2 => State::Stopped,
            _ => return None,
        };
        scanner.left = at.left;
        scanner.position = at.payload;
        scanner.header = at.header;
        scanner.header_have = at.header_have;
        scanner.fragmented = at.flags & FRAGMENTED != 0;
        scanner.closed = at.flags & CLOSED != 0;
        let have = usize::from(at.header_have);
        let is_possible = match scanner.state {
            State::Stopped => true,
            State::Header => have < 2 || (have <= at.header.len() && have < scanner.header_length()),
            State::Payload => have >= 2 && have == scanner.header_length() && at.left > 0,
        };
        if !is_possible {
            return None;
        }
        if scanner.state == State::Payload {
            scanner.keep = if at.payload == 0 { scanner.keeps() } else { at.flags & KEEPS != 0 };
            if at.payload > 0 && scanner.keep {
                let is_complete = |kept: &&[u8]| kept.len() as u64 == at.payload && kept.len() <= KEPT;
                match kept.filter(is_complete) {
                    Some(kept) => scanner.kept.extend_from_slice(kept),
                    None => scanner.keep = false,
                }
            }
        }
        Some(scanner)
    }
}

#[cfg(test)]
mod tests {
    use t3_record::evidence::Breach;

    use super::*;
    use crate::relay::frames::{Frame, Sink};

    #[derive(Debug, Default, PartialEq)]
    struct Seen(Vec<String>);

    impl Sink for Seen {
        fn frame(&mut self, frame: Frame) {
            self.0.push(format!("{frame:?}"));
        }
        fn message(&mut self) {
            self.0.push("message".to_owned());
        }
        fn text(&mut self, payload: &[u8]) {
            self.0.push(format!("text {payload:?}"));
        }
        fn close(&mut self, code: Option<u16>, reason: &[u8], _: usize) {
            self.0.push(format!("close {code:?} {reason:?}"));
        }
        fn breach(&mut self, breach: Breach) {
            self.0.push(format!("{breach:?}"));
        }
    }

    /// A text, a fragmented message, a long frame, a Close frame with a reason, all masked.
    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut frame = |first: u8, payload: &[u8]| {
            bytes.push(first);
            match payload.len() {
                0..126 => bytes.push(0x80 | u8::try_from(payload.len()).unwrap()),
                _ => {
                    bytes.push(0x80 | 126);
                    bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
                }
            }
            let mask = [7, 11, 13, 17];
            bytes.extend(mask);
            bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at & 3]));
        };
        frame(0x81, br#"{"_tag":"Ping"}"#);
        frame(0x01, b"part");
        frame(0x80, b"rest");
        frame(0x82, &[9; 300]);
        frame(0x89, b"");
        frame(0x88, &[0x03, 0xe8, b'b', b'y', b'e']);
        bytes
    }

    /// The events of these bytes, and the scanner after them.
    fn scan(bytes: &[u8]) -> (Seen, FrameScanner) {
        let mut seen = Seen::default();
        let mut scanner = FrameScanner::new(Sender::Client, false);
        scanner.feed(bytes, &mut seen);
        (seen, scanner)
    }

    #[test]
    fn a_scanner_continues_at_every_byte() {
        let bytes = stream();
        let whole = scan(&bytes).0;
        for cut in 0..=bytes.len() {
            let (mut seen, first) = scan(&bytes[..cut]);
            let (position, kept) = (first.position(), first.kept().to_vec());
            let mut second = FrameScanner::resume(Sender::Client, false, position, Some(&kept)).unwrap();
            assert_eq!(second.position(), position, "cut at {cut}");
            second.feed(&bytes[cut..], &mut seen);
            assert_eq!(seen, whole, "cut at {cut}");
        }
    }

    #[test]
    fn without_the_kept_part_nothing_wrong_is_recognised() {
        let bytes = stream();
        let whole = scan(&bytes).0;
        for cut in 0..=bytes.len() {
            let (mut seen, first) = scan(&bytes[..cut]);
            let mut second = FrameScanner::resume(Sender::Client, false, first.position(), None).unwrap();
            second.feed(&bytes[cut..], &mut seen);
            let others = |seen: &Seen| {
                let is_payload = |line: &&String| line.starts_with("text") || line.starts_with("close");
                seen.0.iter().filter(|line| !is_payload(line)).cloned().collect::<Vec<_>>()
            };
            assert_eq!(others(&seen), others(&whole), "cut at {cut}");
            let is_known = |line: &String| whole.0.contains(line) || line == "close None []";
            assert!(seen.0.iter().all(is_known), "cut at {cut}: {seen:?}");
        }
    }

    #[test]
    fn impossible_positions_are_refused() {
        let inside =
            Position { left: 3, header: [0x81; 14], header_have: 6, flags: 1, ..Position::default() };
        let refused = [
            Position { flags: 3, ..Position::default() },
            Position { header_have: 15, ..Position::default() },
            Position { header_have: 1, ..inside },
            Position { left: 0, ..inside },
            Position { header_have: 14, flags: 0, ..inside },
        ];
        for position in refused {
            assert!(FrameScanner::resume(Sender::Client, false, position, None).is_none(), "{position:?}");
        }
    }
}
