//! Reads the frame headers of one direction of a WebSocket as its bytes pass (RFC 6455 section 5).
//!
//! Never changes, keeps or delays a byte: it is shown each chunk after it was read and says what
//! was in it. It holds at most one header (14 bytes) and the start of one short payload (125
//! bytes); everything else is skipped by count, so any split of the stream gives the same answers.
//! After a breach of the protocol frame boundaries mean nothing any more: it goes blind, and the
//! bytes go on passing.

use t3_record::evidence::Breach;

/// The longest text frame that is looked into: a heartbeat with some whitespace.
const SHORT_TEXT: u64 = 64;

/// What the scanner tells.
pub trait Sink {
    /// A data message is complete.
    fn message(&mut self);
    /// A short unfragmented text message, unmasked.
    fn text(&mut self, payload: &[u8]);
    /// A close frame: code (`None` when empty) and reason; its last byte is at `end` in the chunk
    /// given to `feed` (exclusive).
    fn close(&mut self, code: Option<u16>, reason: &[u8], end: usize);
    /// The peer broke the protocol; nothing more will be told.
    fn breach(&mut self, breach: Breach);
}

/// Who sends in this direction: browsers mask their frames, servers do not (section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The browser.
    Client,
    /// serve.
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Payload,
    Blind,
}

/// The scanner of one direction.
#[derive(Debug, Clone)]
pub struct Scanner {
    sender: Sender,
    /// An extension was negotiated: reserved bits are its business (section 5.2).
    extended: bool,
    state: State,
    header: [u8; 14],
    header_have: u8,
    /// Bytes of the payload not seen yet.
    left: u64,
    /// Where in the payload the next byte stands, for the mask. Wraps harmlessly: only its lowest
    /// bits count.
    position: u64,
    kept: [u8; 125],
    kept_have: u8,
    keep: bool,
    /// Inside a fragmented message.
    fragmented: bool,
    closed: bool,
}

impl Scanner {
    /// A scanner at the start of a stream of frames.
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
            kept: [0; 125],
            kept_have: 0,
            keep: false,
            fragmented: false,
            closed: false,
        }
    }

    /// The stream stands inside a frame. Never true when blind.
    #[must_use]
    pub fn mid_frame(&self) -> bool {
        match self.state {
            State::Header => self.header_have > 0,
            State::Payload => true,
            State::Blind => false,
        }
    }

    /// A control frame may be put into the stream here without corrupting it.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.state == State::Header && self.header_have == 0
    }

    /// A close frame has passed.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Looks at the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Blind => return,
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
                    if self.keep {
                        self.keep_some(&bytes[at..at + take]);
                    }
                    at += take;
                    self.left -= take as u64;
                    self.position = self.position.wrapping_add(take as u64);
                    if self.left == 0 {
                        self.frame_ended(at, sink);
                    }
                }
            }
        }
    }

    /// How long the header is, as far as that is known by now.
    fn header_length(&self) -> usize {
        if self.header_have < 2 {
            // One byte at a time at the start: the first tells of a breach before there is a
            // second.
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
            return self.go_blind(breach, sink);
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
            return self.go_blind(Breach::HugeLength, sink);
        }
        self.state = State::Payload;
        self.left = length;
        self.position = 0;
        self.kept_have = 0;
        let whole_text = self.opcode() == 1 && self.fin() && self.header[0] & 0x70 == 0;
        self.keep = self.opcode() == 8 || (whole_text && length <= SHORT_TEXT);
        if length == 0 {
            self.frame_ended(at, sink);
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

    fn keep_some(&mut self, bytes: &[u8]) {
        let have = usize::from(self.kept_have);
        let mask = self.mask();
        for (offset, (slot, byte)) in self.kept[have..].iter_mut().zip(bytes).enumerate() {
            let place = self.position.wrapping_add(offset as u64) & 3;
            *slot = byte ^ mask[place as usize & 3];
        }
        let now = (have + bytes.len()).min(self.kept.len());
        self.kept_have = u8::try_from(now).unwrap_or(125);
    }

    fn mask(&self) -> [u8; 4] {
        let end = self.header_length();
        let mut mask = [0; 4];
        if self.header[1] & 0x80 != 0 {
            mask.copy_from_slice(&self.header[end - 4..end]);
        }
        mask
    }

    fn frame_ended(&mut self, at: usize, sink: &mut impl Sink) {
        self.state = State::Header;
        self.header_have = 0;
        let kept = &self.kept[..usize::from(self.kept_have)];
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
                    self.go_blind(Breach::BadClose, sink);
                }
            }
            9.. => {}
            opcode => {
                self.fragmented = !self.fin();
                if self.fin() {
                    sink.message();
                    if self.keep && opcode == 1 {
                        sink.text(kept);
                    }
                }
            }
        }
    }

    fn go_blind(&mut self, breach: Breach, sink: &mut impl Sink) {
        self.state = State::Blind;
        sink.breach(breach);
    }
}

/// Status codes that may stand in a close frame (section 7.4 and the IANA registry): 1004 to 1006
/// and 1015 never travel.
#[must_use]
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests;
