//! Compares a received stream with what its sender has sent, byte by byte. No IO.
//!
//! The sender notes each frame in the script before it writes it; so the receiver knows every byte,
//! also of heartbeats, which are all equal. A missing, repeated, changed or invented byte is found
//! at its place, and a stream that ends early is a correct prefix.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    content::{Bytes, Direction, Frame},
    tally::Tally,
};
use crate::frame::{self, opcode};

/// Frames that were sent and not yet received, in order.
#[derive(Debug, Clone, Default)]
pub struct Script(Arc<Mutex<VecDeque<Frame>>>);

impl Script {
    /// Notes a frame that is about to be sent.
    pub fn push(&self, frame: Frame) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(frame);
    }

    fn pop(&self) -> Option<Frame> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn next(&self) -> Option<Frame> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).front().copied()
    }

    /// Frames that were not received.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// A byte that the sender did not send at this place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "byte {offset} of {direction:?}, byte {at} of {frame:?}: expected {}, got {}",
    hex(expected.as_slice()),
    hex(got)
)]
pub struct WrongByte {
    pub direction: Direction,
    /// Offset in the stream.
    pub offset: u64,
    /// Frame of the script at this place; `None`: the sender has sent no more.
    pub frame: Option<Frame>,
    /// Offset in the frame.
    pub at: usize,
    pub expected: Option<u8>,
    /// The first received bytes from this place on, which show whose they are.
    pub got: Vec<u8>,
}

/// Bytes of [`WrongByte::got`].
const SHOWN: usize = 40;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks one direction.
#[derive(Debug)]
pub struct Checker {
    direction: Direction,
    script: Script,
    current: Option<(Frame, Bytes, usize)>,
    /// Received bytes and complete frames.
    pub tally: Tally,
    /// A Close frame that the sender did not send, and everything after it.
    inserted: Vec<u8>,
}

impl Checker {
    #[must_use]
    pub fn new(direction: Direction, script: Script) -> Self {
        Self { direction, script, current: None, tally: Tally::default(), inserted: Vec::new() }
    }

    /// Checks the next bytes; adds the frames that they complete to `complete`.
    ///
    /// # Errors
    /// [`WrongByte`]; the rest of the stream is not checked then.
    pub fn feed(&mut self, mut bytes: &[u8], complete: &mut Vec<Frame>) -> Result<(), WrongByte> {
        while !bytes.is_empty() {
            if !self.inserted.is_empty() || self.starts_inserted_close(bytes) {
                self.inserted.extend(bytes);
                return Ok(());
            }
            let (frame, expected, at) = match self.current.take() {
                Some(current) => current,
                None => {
                    let Some(frame) = self.script.pop() else { return Err(self.wrong(None, 0, None, bytes)) };
                    (frame, self.direction.encode(frame), 0)
                }
            };
            let block = self.direction.block();
            let part = match expected.head.get(at..) {
                Some(part) if !part.is_empty() => part,
                _ => {
                    let start = expected.body.start + (at - expected.head.len());
                    block.get(start..expected.body.end).unwrap_or_default()
                }
            };
            let length = part.len().min(bytes.len());
            let (have, rest) = bytes.split_at(length);
            let part = part.get(..length).unwrap_or_default();
            if have != part {
                let same = have.iter().zip(part).take_while(|(have, part)| have == part).count();
                self.tally.add(have.get(..same).unwrap_or_default());
                let (expected, have) = (part.get(same).copied(), have.get(same..).unwrap_or_default());
                return Err(self.wrong(Some(frame), at + same, expected, have));
            }
            self.tally.add(have);
            bytes = rest;
            if at + length == expected.len() {
                self.tally.frames += 1;
                complete.push(frame);
            } else {
                self.current = Some((frame, expected, at + length));
            }
        }
        Ok(())
    }

    /// Whether dispatch closes the session here, between two frames of the sender.
    fn starts_inserted_close(&self, bytes: &[u8]) -> bool {
        self.current.is_none()
            && bytes.first() == Some(&(0x80 | opcode::CLOSE))
            && !matches!(self.script.next(), Some(Frame::Close(_)))
    }

    fn wrong(&self, frame: Option<Frame>, at: usize, expected: Option<u8>, got: &[u8]) -> WrongByte {
        let got = got.iter().take(SHOWN).copied().collect();
        WrongByte { direction: self.direction, offset: self.tally.bytes, frame, at, expected, got }
    }

    /// Code of the Close frame that the sender did not send, if the stream ended after it.
    #[must_use]
    pub fn inserted_close(&self) -> Option<Option<u16>> {
        let mut reader = frame::Reader::default();
        let frames = reader.feed(&self.inserted);
        match frames.as_slice() {
            [frame] if !reader.inside_frame() => frame.close().map(|(code, _)| code),
            _ => None,
        }
    }

    /// Bytes after the last frame of the sender.
    #[must_use]
    pub fn inserted_bytes(&self) -> usize {
        self.inserted.len()
    }

    /// Whether the stream is inside a frame.
    #[must_use]
    pub fn is_inside_frame(&self) -> bool {
        self.current.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restart::content::Sender;

    const FRAMES: [Frame; 7] = [
        Frame::Message(0),
        Frame::Ping,
        Frame::Ping,
        Frame::Message(1),
        Frame::Pong,
        Frame::Message(2),
        Frame::Close(1000),
    ];

    fn stream(direction: Direction) -> (Vec<u8>, Script) {
        let script = Script::default();
        let mut bytes = Vec::new();
        for frame in FRAMES {
            script.push(frame);
            let encoded = direction.encode(frame);
            bytes.extend(&encoded.head);
            bytes.extend(&direction.block()[encoded.body]);
        }
        (bytes, script)
    }

    fn check(direction: Direction, bytes: &[u8], piece: usize) -> Result<(Vec<Frame>, Checker), WrongByte> {
        let mut checker = Checker::new(direction, stream(direction).1);
        let mut complete = Vec::new();
        for piece in bytes.chunks(piece) {
            checker.feed(piece, &mut complete)?;
        }
        Ok((complete, checker))
    }

    const DIRECTIONS: [Direction; 2] =
        [Direction { session: 3, sender: Sender::Client }, Direction { session: 4, sender: Sender::Serve }];

    #[test]
    fn a_correct_stream_passes_in_any_pieces() {
        for direction in DIRECTIONS {
            let (bytes, _) = stream(direction);
            for piece in [1, 2, 7, 1000, bytes.len()] {
                let (complete, checker) = check(direction, &bytes, piece).unwrap();
                assert_eq!(complete, FRAMES);
                let mut tally = Tally::default();
                tally.add(&bytes);
                tally.frames = 7;
                assert_eq!(checker.tally, tally);
                assert!(!checker.is_inside_frame() && checker.script.left() == 0);
            }
            let (complete, checker) = check(direction, &bytes[..bytes.len() - 1], 64).unwrap();
            assert_eq!(complete.len(), FRAMES.len() - 1);
            assert!(checker.is_inside_frame());
        }
    }

    #[test]
    fn each_flipped_byte_is_found_at_its_place() {
        for direction in DIRECTIONS {
            let (bytes, _) = stream(direction);
            for at in (0..bytes.len()).step_by(if bytes.len() > 4000 { 61 } else { 1 }) {
                let mut wrong = bytes.clone();
                wrong[at] ^= 0x40;
                let error = check(direction, &wrong, 1000).unwrap_err();
                assert_eq!((error.offset, error.got[0]), (at as u64, wrong[at]), "{error}");
                assert_eq!(error.expected, Some(bytes[at]));
            }
        }
    }

    #[test]
    fn a_missing_or_repeated_byte_is_found() {
        for direction in DIRECTIONS {
            let (bytes, _) = stream(direction);
            for at in (0..bytes.len() - 1).step_by(17) {
                let mut missing = bytes.clone();
                missing.remove(at);
                let cut = check(direction, &missing, 1000);
                assert!(cut.as_ref().map_or(true, |(_, checker)| checker.is_inside_frame()), "{at}: {cut:?}");
                let mut repeated = bytes.clone();
                repeated.insert(at, bytes[at]);
                assert!(check(direction, &repeated, 1000).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn a_missing_or_repeated_frame_is_found_also_a_heartbeat() {
        for direction in DIRECTIONS {
            let mut ends = vec![0];
            for frame in FRAMES {
                ends.push(ends[ends.len() - 1] + direction.encode(frame).len());
            }
            let (bytes, _) = stream(direction);
            for (number, frame) in ends.windows(2).enumerate() {
                let (start, end) = (frame[0], frame[1]);
                let missing = [&bytes[..start], &bytes[end..]].concat();
                let checked = check(direction, &missing, 1000);
                // The last one is missing: a correct prefix, but fewer frames.
                let is_found = checked.map_or(true, |(complete, _)| complete.len() < FRAMES.len());
                assert!(is_found, "{number}");
                let repeated = [&bytes[..end], &bytes[start..]].concat();
                let checked = check(direction, &repeated, 1000);
                // A second Close is one that the sender did not send.
                let is_found = checked.map_or(true, |(_, checker)| checker.inserted_bytes() > 0);
                assert!(is_found, "{number}");
            }
        }
    }

    #[test]
    fn a_close_that_the_sender_did_not_send_is_recognised_between_frames_only() {
        let direction = DIRECTIONS[1];
        let (bytes, _) = stream(direction);
        let close = frame::from_server(opcode::CLOSE, &frame::close_payload(Some(1001), ""));
        let first = direction.encode(FRAMES[0]).len();
        for at in [0, first] {
            let cut = [&bytes[..at], &close].concat();
            let (_, checker) = check(direction, &cut, 3).unwrap();
            assert_eq!(checker.inserted_close(), Some(Some(1001)));
            let more = [&cut[..], b"x"].concat();
            assert_eq!(check(direction, &more, 3).unwrap().1.inserted_close(), None);
        }
        let inside = [&bytes[..first - 1], &close].concat();
        assert!(check(direction, &inside, 3).is_err());
    }
}
