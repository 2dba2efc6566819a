//! Passive scanner of the frame headers of one WebSocket direction (RFC 6455 section 5).
//!
//! Reads each chunk without changing or delaying it, and reports its frames. It stores up to one
//! header (14 bytes) and one short payload (125 bytes) and skips the rest by length, so the result
//! does not depend on how the stream is split. After a protocol breach frame boundaries are
//! unknown: the scanner stops, and the relay continues to forward the bytes.

pub mod position;

use t3_record::evidence::Breach;

/// Longest text frame whose payload is read, in bytes: a heartbeat with some whitespace.
const SHORT_TEXT: u64 = 64;
/// Limit of the payload that is kept, in bytes: that of a control frame (section 5.5).
const KEPT: usize = 125;

/// A complete frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    /// Size of its payload in bytes.
    pub size: u64,
    /// It is a complete, unfragmented data message.
    pub is_message: bool,
}

/// Receiver of the scanner's events.
pub trait Sink {
    /// A frame is complete; called after the other events of the frame.
    fn frame(&mut self, frame: Frame);
    /// A data message is complete.
    fn message(&mut self);
    /// A short unfragmented text message, unmasked.
    fn text(&mut self, payload: &[u8]);
    /// The first Close frame: code (`None` when empty) and reason; it ends before offset `end` of
    /// the chunk passed to `feed`.
    fn close(&mut self, code: Option<u16>, reason: &[u8], end: usize);
    /// The peer violated the protocol. This is the last event.
    fn breach(&mut self, breach: Breach);
}

/// Sender of this direction: clients mask their frames, servers do not (section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    Client,
    /// serve.
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Payload,
    Stopped,
}

#[derive(Debug, Clone)]
pub struct FrameScanner {
    sender: Sender,
    /// An extension was negotiated: it may use the reserved bits (section 5.2).
    extended: bool,
    state: State,
    header: [u8; 14],
    header_have: u8,
    /// Payload bytes still to come.
    left: u64,
    /// Offset of the next byte in the payload, for the mask. May wrap: only the two lowest bits
    /// count.
    position: u64,
    /// Unmasked payload of a frame to keep that arrives in parts. Without allocation otherwise.
    kept: Vec<u8>,
    keep: bool,
    /// Inside a fragmented message.
    fragmented: bool,
    closed: bool,
}

impl FrameScanner {
    #[must_use]
    pub fn new(sender: Sender, extended: bool) -> Self {
        Self {
            sender,
            extended,
            state: State::Header,
            header: [0; 14],
            header_have: 0,
            left: 0,
            position: 0,
            kept: Vec::new(),
            keep: false,
            fragmented: false,
            closed: false,
        }
    }

    /// The stream is inside a frame. Always `false` after a breach.
    #[must_use]
    pub fn mid_frame(&self) -> bool {
        match self.state {
            State::Header => self.header_have > 0,
            State::Payload => true,
            State::Stopped => false,
        }
    }

    /// A control frame can be inserted here without corrupting the stream.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.state == State::Header && self.header_have == 0
    }

    /// A Close frame has passed.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Scans the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Stopped => return,
                State::Header => {
                    let wanted = self.header_length();
                    let have = usize::from(self.header_have);
                    let take = (wanted - have).min(bytes.len() - at);
                    self.header[have..have + take].copy_from_slice(&bytes[at..at + take]);
                    self.header_have += u8::try_from(take).unwrap_or(0);
                    at += take;
                    self.header_grew(at, sink);
                }
                State::Payload => {
                    let rest = bytes.len() - at;
                    let take = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                    let is_whole = self.position == 0 && self.left == take as u64;
                    let mut whole = [0; KEPT];
                    let mut whole_length = 0;
                    if self.keep && is_whole {
                        whole_length = self.unmask(&bytes[at..at + take], &mut whole);
                    } else if self.keep {
                        self.keep_payload(&bytes[at..at + take]);
                    }
                    at += take;
                    self.left -= take as u64;
                    self.position = self.position.wrapping_add(take as u64);
                    if self.left == 0 {
                        let kept = std::mem::take(&mut self.kept);
                        let kept = if is_whole { &whole[..whole_length] } else { &kept };
                        self.frame_ended(at, kept, sink);
                    }
                }
            }
        }
    }

    /// Length of the header, as far as the bytes so far determine it.
    fn header_length(&self) -> usize {
        if self.header_have < 2 {
            // One byte at a time: a breach in the first is reported before the second arrives.
            return usize::from(self.header_have) + 1;
        }
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + if self.header[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn header_grew(&mut self, at: usize, sink: &mut impl Sink) {
        let have = usize::from(self.header_have);
        let breach = match have {
            1 => self.first_byte_breach(),
            2 => self.second_byte_breach(),
            _ => None,
        };
        if let Some(breach) = breach {
            return self.stop(breach, sink);
        }
        if have < 2 || have < self.header_length() {
            return;
        }
        let length = match self.header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => {
                let mut eight = [0; 8];
                eight.copy_from_slice(&self.header[2..10]);
                u64::from_be_bytes(eight)
            }
            short => u64::from(short),
        };
        if length >> 63 != 0 {
            return self.stop(Breach::HugeLength, sink);
        }
        self.state = State::Payload;
        self.left = length;
        self.position = 0;
        self.kept.clear();
        self.keep = self.keeps();
        if length == 0 {
            self.frame_ended(at, &[], sink);
        }
    }

    fn fin(&self) -> bool {
        self.header[0] & 0x80 != 0
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x0f
    }

    fn first_byte_breach(&self) -> Option<Breach> {
        let opcode = self.opcode();
        if self.header[0] & 0x70 != 0 && !self.extended {
            return Some(Breach::ReservedBit);
        }
        match opcode {
            3..=7 | 11..=15 => Some(Breach::ReservedOpcode),
            8..=10 if !self.fin() => Some(Breach::FragmentedControl),
            0..=2 if self.closed => Some(Breach::DataAfterClose),
            0 if !self.fragmented => Some(Breach::Continuation),
            1 | 2 if self.fragmented => Some(Breach::Continuation),
            _ => None,
        }
    }

    fn second_byte_breach(&self) -> Option<Breach> {
        let masked = self.header[1] & 0x80 != 0;
        match (self.sender, masked) {
            (Sender::Client, false) => return Some(Breach::Unmasked),
            (Sender::Server, true) => return Some(Breach::Masked),
            _ => {}
        }
        (self.opcode() >= 8 && self.header[1] & 0x7f > 125).then_some(Breach::LongControl)
    }

    /// Unmasks payload at the current position into `to`, as far as it fits. Returns the length.
    fn unmask(&self, bytes: &[u8], to: &mut [u8]) -> usize {
        let mask = self.mask();
        for (offset, (slot, byte)) in to.iter_mut().zip(bytes).enumerate() {
            let index = self.position.wrapping_add(offset as u64) & 3;
            *slot = byte ^ mask[index as usize & 3];
        }
        bytes.len().min(to.len())
    }

    fn keep_payload(&mut self, bytes: &[u8]) {
        let mut part = [0; KEPT];
        let length = self.unmask(bytes, &mut part);
        let room = KEPT.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&part[..length.min(room)]);
    }

    /// Whether the payload of the frame that begins is kept: that of a Close frame, and of a short
    /// text message.
    fn keeps(&self) -> bool {
        let whole_text = self.opcode() == 1 && self.fin() && self.header[0] & 0x70 == 0;
        self.opcode() == 8 || (whole_text && self.left <= SHORT_TEXT)
    }

    fn mask(&self) -> [u8; 4] {
        let end = self.header_length();
        let mut mask = [0; 4];
        if self.header[1] & 0x80 != 0 {
            mask.copy_from_slice(&self.header[end - 4..end]);
        }
        mask
    }

    fn frame_ended(&mut self, at: usize, kept: &[u8], sink: &mut impl Sink) {
        self.state = State::Header;
        self.header_have = 0;
        match self.opcode() {
            8 => {
                let code = match kept {
                    [high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
                    _ => None,
                };
                let first = !self.closed;
                self.closed = true;
                if first {
                    sink.close(code, kept.get(2..).unwrap_or_default(), at);
                }
                if kept.len() == 1 || code.is_some_and(|code| !may_be_sent(code)) {
                    self.stop(Breach::BadClose, sink);
                }
            }
            9.. => sink.frame(Frame { opcode: self.opcode(), size: self.position, is_message: false }),
            opcode => {
                let is_message = self.fin() && opcode != 0;
                self.fragmented = !self.fin();
                if self.fin() {
                    sink.message();
                    if self.keep && opcode == 1 {
                        sink.text(kept);
                    }
                }
                sink.frame(Frame { opcode, size: self.position, is_message });
            }
        }
    }

    fn stop(&mut self, breach: Breach, sink: &mut impl Sink) {
        self.state = State::Stopped;
        sink.breach(breach);
    }
}

/// Returns whether a Close frame may contain this code (section 7.4 and the IANA registry): 1004 to
/// 1006 and 1015 are never sent.
#[must_use]
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests;
