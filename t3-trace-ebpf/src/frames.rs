//! Follows one direction of a WebSocket from the start of its connection: past the HTTP head of the
//! handshake, from frame header to frame header (RFC 6455 section 5.2), up to the Close frame.
//! Pure: no helper, no map; the hooks that feed it are `probes::message`.
//!
//! It asks for up to 16 bytes at a time, of headers only: payload is skipped unread, but for the
//! two bytes of a close code. What cannot be a header of this direction ends it as [`LOST`]: a code
//! is never guessed.

/// Nothing has been read.
pub const START: u32 = 0;
/// In the HTTP head.
pub const HEAD: u32 = 1;
/// In frames.
pub const FRAMES: u32 = 2;
/// Its Close frame has been read.
pub const CLOSED: u32 = 3;
/// Not a WebSocket.
pub const OTHER: u32 = 4;
/// It can no longer be followed.
pub const LOST: u32 = 5;

/// Most bytes that are asked for at a time.
pub const MOST: u32 = 16;
/// The end of an HTTP head.
const BLANK_LINE: u32 = 0x0d0a_0d0a;

const CONTINUATION: u8 = 0;
const CLOSE: u8 = 8;

/// One direction.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Stream {
    /// Bytes of the payload of the current frame that are still to come.
    skip: u64,
    /// What was asked for: [`Stream::have`] bytes of it are there. With room for as many again, so
    /// that any place and any length that can be asked for are in it.
    pub bytes: [u8; 32],
    have: u32,
    need: u32,
    phase: u32,
    /// The last four bytes of the head.
    window: u32,
    /// A message of several frames has begun.
    is_fragmented: u32,
    /// The code of the Close frame; 0 for none.
    code: u32,
    /// Number of the next byte in the sequence of the connection.
    pub next: u32,
    pad: u32,
}

impl Stream {
    pub const NEW: Self = Self {
        skip: 0,
        bytes: [0; 32],
        have: 0,
        need: 0,
        phase: START,
        window: 0,
        is_fragmented: 0,
        code: 0,
        next: 0,
        pad: 0,
    };

    #[inline(always)]
    pub fn phase(&self) -> u32 {
        self.phase
    }

    /// Nothing more is to be read.
    #[inline(always)]
    pub fn is_over(&self) -> bool {
        self.phase >= OTHER
    }

    #[inline(always)]
    pub fn code(&self) -> u16 {
        (self.code & 0xffff) as u16
    }

    /// All frames until now were read, so that a Close frame that was not seen was not there.
    #[inline(always)]
    pub fn is_complete(&self) -> bool {
        match self.phase {
            FRAMES | CLOSED => true,
            HEAD => self.window == BLANK_LINE,
            _ => false,
        }
    }

    /// Something was missed, or it is another protocol.
    #[inline(always)]
    pub fn lose(&mut self) {
        self.phase = if self.phase == START { OTHER } else { LOST };
    }

    /// The connection is not a WebSocket.
    #[inline(always)]
    pub fn refuse(&mut self) {
        self.phase = OTHER;
    }

    /// What is read from now on came after the handshake.
    #[inline(always)]
    pub fn end_head(&mut self) {
        if self.phase == HEAD {
            self.phase = if self.window == BLANK_LINE { FRAMES } else { LOST };
        }
    }

    /// Place in [`Stream::bytes`] for what is asked for next.
    #[inline(always)]
    pub fn have(&self) -> u32 {
        self.have
    }

    /// Before the frames: how many bytes are to be put there, up to [`MOST`]; 0: all are to be
    /// passed, but for the last four ([`Stream::pass_head`]).
    #[inline(always)]
    pub fn wants_of_head(&self, is_sent: bool) -> u32 {
        match self.phase {
            START => first(is_sent).saturating_sub(self.have),
            HEAD if is_sent => MOST,
            _ => 0,
        }
    }

    /// In the frames: the same; 0: some are to be passed ([`Stream::pass`]).
    #[inline(always)]
    pub fn wants(&self) -> u32 {
        if self.phase != FRAMES || self.skip != 0 {
            return 0;
        }
        let need = if self.need < 2 { 2 } else { self.need };
        need.saturating_sub(self.have)
    }

    /// A part of the head of the request was passed that ends in these bytes, up to four.
    #[inline(always)]
    pub fn pass_head(&mut self, byte: u8) {
        self.window = self.window << 8 | byte as u32;
    }

    /// Passes up to `left` bytes unread; returns how many.
    #[inline(always)]
    pub fn pass(&mut self, left: u64) -> u64 {
        if self.skip == 0 {
            // Nothing may come after a Close frame.
            self.lose();
            return left;
        }
        let passed = if left < self.skip { left } else { self.skip };
        self.skip -= passed;
        passed
    }

    /// Can `left` bytes be passed although they cannot be read.
    #[inline(always)]
    pub fn can_pass(&self, left: u64) -> bool {
        (self.phase == FRAMES || self.phase == CLOSED) && self.skip >= left
    }

    /// `count` bytes have been put at [`Stream::have`], up to as many as it wants of the head;
    /// returns how many belong to it.
    #[inline(always)]
    pub fn push_head(&mut self, count: u32, is_sent: bool) -> u32 {
        if self.phase == HEAD {
            return self.scan(count);
        }
        self.have += count;
        if self.have >= first(is_sent) {
            let fits = if is_sent { self.is_upgrade() } else { self.is_get() };
            self.phase = if fits { HEAD } else { OTHER };
            self.have = 0;
        }
        count
    }

    /// `count` bytes have been put at [`Stream::have`], up to as many as it wants of a frame. Says
    /// whether the Close frame has been read.
    #[inline(always)]
    pub fn push(&mut self, count: u32, is_sent: bool) -> bool {
        self.have += count;
        if self.have == 2 && self.need < 2 {
            self.need = match header(self.bytes[0], self.bytes[1], is_sent, self.is_fragmented != 0) {
                Some(need) => need,
                None => {
                    self.lose();
                    return false;
                }
            };
        }
        if self.need < 2 || self.have < self.need {
            return false;
        }
        self.have = 0;
        self.need = 0;
        self.frame(is_sent)
    }

    /// Searches the end of the head; returns how many bytes belong to it.
    #[inline(always)]
    fn scan(&mut self, count: u32) -> u32 {
        let mut window = self.window;
        let mut used = count;
        let mut at = 0;
        while at < MOST {
            if at >= count {
                break;
            }
            window = window << 8 | self.bytes[at as usize] as u32;
            if window == BLANK_LINE {
                self.phase = FRAMES;
                used = at + 1;
                break;
            }
            at += 1;
        }
        self.window = window;
        used
    }

    #[inline(always)]
    fn is_get(&self) -> bool {
        let [a, b, c, d, ..] = self.bytes;
        a == b'G' && b == b'E' && c == b'T' && d == b' '
    }

    #[inline(always)]
    fn is_upgrade(&self) -> bool {
        let expected = *b"HTTP/1.1 101 ";
        let mut differ = 0;
        let mut at = 0;
        while at < expected.len() {
            differ |= self.bytes[at] ^ expected[at];
            at += 1;
        }
        differ == 0
    }

    /// A complete header; says whether it was that of the Close frame.
    #[inline(always)]
    fn frame(&mut self, is_sent: bool) -> bool {
        let b = &self.bytes;
        let opcode = b[0] & 0x0f;
        let length = match b[1] & 0x7f {
            126 => {
                let length = (b[2] as u64) << 8 | b[3] as u64;
                // The shortest form is required.
                if length < 126 { None } else { Some(length) }
            }
            127 => {
                let high = (b[2] as u64) << 24 | (b[3] as u64) << 16 | (b[4] as u64) << 8 | b[5] as u64;
                let low = (b[6] as u64) << 24 | (b[7] as u64) << 16 | (b[8] as u64) << 8 | b[9] as u64;
                let length = high << 32 | low;
                if length < 0x1_0000 || length >> 63 == 1 { None } else { Some(length) }
            }
            length => Some(length as u64),
        };
        let Some(length) = length else {
            self.lose();
            return false;
        };
        if opcode != CLOSE {
            if opcode < CLOSE {
                self.is_fragmented = (b[0] & 0x80 == 0) as u32;
            }
            self.skip = length;
            return false;
        }
        if length >= 2 {
            let (high, low) = if is_sent { (b[2], b[3]) } else { (b[6] ^ b[2], b[7] ^ b[3]) };
            let code = (high as u32) << 8 | low as u32;
            if !is_code(code) {
                self.lose();
                return false;
            }
            self.code = code;
            self.skip = length - 2;
        }
        self.phase = CLOSED;
        true
    }
}

/// Bytes by which the start of the handshake is recognised.
#[inline(always)]
const fn first(is_sent: bool) -> u32 {
    if is_sent { 13 } else { 4 }
}

/// How many bytes the header of a frame has that starts with these, with the code of a Close frame;
/// `None`: no frame of this direction starts with them.
#[inline(always)]
fn header(first: u8, second: u8, is_sent: bool, is_fragmented: bool) -> Option<u32> {
    let opcode = first & 0x0f;
    let is_final = first & 0x80 != 0;
    // RSV1 is for permessage-deflate (RFC 7692): on the first frame of a message.
    let reserved = first & 0x70;
    let length = second & 0x7f;
    let is_masked = second & 0x80 != 0;
    let fits = match opcode {
        CONTINUATION => is_fragmented && reserved == 0,
        1 | 2 => !is_fragmented && reserved & 0x30 == 0,
        CLOSE => is_final && reserved == 0 && length <= 125 && length != 1,
        9 | 10 => is_final && reserved == 0 && length <= 125,
        _ => false,
    };
    // A client masks, a server does not.
    if !fits || is_masked == is_sent {
        return None;
    }
    let extended = match length {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if is_masked { 4 } else { 0 };
    let code = if opcode == CLOSE && length >= 2 { 2 } else { 0 };
    Some(2 + extended + mask + code)
}

/// A code that may be in a Close frame (RFC 6455 section 7.4 and the registry of codes).
#[inline(always)]
fn is_code(code: u32) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
