//! Bytes of one direction of a session: each frame is a function of the session, the sender and a
//! number, so that the receiver knows every byte in advance. No IO.

use std::{ops::Range, sync::OnceLock};

use crate::{
    chaos::plan::Rng,
    frame::{self, HEARTBEAT, HEARTBEAT_ANSWER, opcode},
};

/// Size of a large message.
pub const LARGE: usize = 1 << 20;
/// Length of the numbers at the start of a message: session, sender, number.
const NUMBERS: usize = 16;
/// Positions in the block at which the body of a message can start.
const STARTS: usize = 64 << 10;
/// Mask of the client's frames (RFC 6455 section 5.3): fixed, so that the masked body of a message
/// is a part of a block as well.
const MASK: [u8; 4] = [0x5c, 0x13, 0xe7, 0x91];
/// Lengths at which the header changes, and others.
const LENGTHS: [usize; 12] = [16, 17, 125, 126, 127, 300, 1000, 1460, 4096, 0xffff, 0x1_0000, 0x1_0001];

/// Sender of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    Client,
    Serve,
}

/// A frame of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Binary message with this number.
    Message(u64),
    /// Binary message of [`LARGE`] bytes with this number.
    Large(u64),
    /// Heartbeat of t3.
    Ping,
    /// serve's reply to it.
    Pong,
    /// Close with this code.
    Close(u16),
}

/// One direction of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    pub session: u32,
    pub sender: Sender,
}

/// Bytes of a frame: the first ones, and a part of the block of its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes {
    pub head: Vec<u8>,
    pub body: Range<usize>,
}

impl Bytes {
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Direction {
    /// The bytes of a frame on the wire.
    #[must_use]
    pub fn encode(self, frame: Frame) -> Bytes {
        let (number, length) = match frame {
            Frame::Message(number) => (number, self.length(number)),
            Frame::Large(number) => (number, LARGE),
            Frame::Ping => return self.short(opcode::TEXT, HEARTBEAT.as_bytes()),
            Frame::Pong => return self.short(opcode::TEXT, HEARTBEAT_ANSWER.as_bytes()),
            Frame::Close(code) => return self.short(opcode::CLOSE, &code.to_be_bytes()),
        };
        let mut numbers = [0; NUMBERS];
        numbers[..4].copy_from_slice(&self.session.to_be_bytes());
        numbers[4] = u8::from(self.sender == Sender::Serve);
        numbers[8..].copy_from_slice(&number.to_be_bytes());
        let start = usize::try_from(self.rng(number).below(STARTS as u64 / 4)).unwrap_or(0) * 4;
        let mut bytes = self.start(opcode::BINARY, length, &numbers);
        bytes.body = start..start + (length - NUMBERS);
        bytes
    }

    /// The bytes of this sender from which [`Bytes::body`] is taken.
    #[must_use]
    pub fn block(self) -> &'static [u8] {
        static BLOCKS: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
        let (plain, masked) = BLOCKS.get_or_init(|| {
            let mut rng = Rng(0x7433);
            let words = (LARGE + STARTS) / 8;
            let plain: Vec<u8> = (0..words).flat_map(|_| rng.below(u64::MAX).to_ne_bytes()).collect();
            let masked = masked(&plain);
            (plain, masked)
        });
        if self.sender == Sender::Client { masked } else { plain }
    }

    fn rng(self, number: u64) -> Rng {
        let sender = u64::from(self.sender == Sender::Serve);
        Rng(((u64::from(self.session) << 1) | sender).rotate_left(40) ^ number)
    }

    fn length(self, number: u64) -> usize {
        let index = usize::try_from(self.rng(!number).below(LENGTHS.len() as u64)).unwrap_or(0);
        LENGTHS.get(index).copied().unwrap_or(NUMBERS)
    }

    fn short(self, opcode: u8, payload: &[u8]) -> Bytes {
        self.start(opcode, payload.len(), payload)
    }

    /// Header of a frame and the first bytes of its payload.
    fn start(self, opcode: u8, length: usize, payload: &[u8]) -> Bytes {
        let is_client = self.sender == Sender::Client;
        let mut head = frame::header(0x80 | opcode, length, is_client);
        if is_client {
            head.extend(MASK);
            head.extend(masked(payload));
        } else {
            head.extend(payload);
        }
        Bytes { head, body: 0..0 }
    }
}

fn masked(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(direction: Direction, frame: Frame) -> Vec<u8> {
        let bytes = direction.encode(frame);
        [&bytes.head, &direction.block()[bytes.body.clone()]].concat()
    }

    #[test]
    fn every_frame_is_one_frame_of_rfc_6455_with_its_payload() {
        let numbers = (0..200).map(Frame::Message);
        let others = [Frame::Large(7), Frame::Ping, Frame::Pong, Frame::Close(1000)];
        for frame in numbers.chain(others) {
            let mut payloads = Vec::new();
            for sender in [Sender::Client, Sender::Serve] {
                let direction = Direction { session: 9, sender };
                let bytes = whole(direction, frame);
                assert_eq!(bytes.len(), direction.encode(frame).len());
                assert_eq!(bytes[1] & 0x80 != 0, sender == Sender::Client, "mask");
                let mut read = frame::Reader::default().feed(&bytes);
                assert_eq!(read.len(), 1, "{frame:?}");
                payloads.push(read.remove(0));
            }
            match frame {
                Frame::Large(_) => assert_eq!(payloads[0].payload.len(), LARGE),
                Frame::Message(_) => assert_ne!(payloads[0].payload, payloads[1].payload, "{frame:?}"),
                Frame::Close(_) => assert_eq!(payloads[0].close(), Some((Some(1000), String::new()))),
                Frame::Ping => assert_eq!(payloads[0].payload, HEARTBEAT.as_bytes()),
                Frame::Pong => assert_eq!(payloads[0].payload, HEARTBEAT_ANSWER.as_bytes()),
            }
        }
    }

    #[test]
    fn no_two_messages_are_equal() {
        let mut seen = std::collections::BTreeSet::new();
        for session in 0..5 {
            for sender in [Sender::Client, Sender::Serve] {
                for number in 0..100 {
                    assert!(seen.insert(whole(Direction { session, sender }, Frame::Message(number))));
                }
            }
        }
    }

    #[test]
    fn all_lengths_occur() {
        let direction = Direction { session: 1, sender: Sender::Serve };
        let lengths: std::collections::BTreeSet<_> =
            (0..500).map(|number| direction.length(number)).collect();
        assert_eq!(lengths, LENGTHS.into());
    }
}
