//! Where one request ends and the next begins, and which of a client's bytes may be let through.
//! Pure.
//!
//! A head is let through when it is whole and sound, so that nothing of a refused one was seen by
//! anybody else; a body as it comes. What comes together in one piece, as nearly all heads do, is
//! not copied.

use std::ops::Range;

use super::{
    Limits, Violation,
    chunked::Chunks,
    head::{self, Length},
};

/// The longest request line. RFC 9112 section 3 asks for at least 8000 bytes.
const REQUEST_LINE: usize = 16 * 1024;
/// Empty lines before a request line are ignored (RFC 9112 section 2.2), up to this limit.
const EMPTY_LINES: usize = 2;
/// Record type of a TLS handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// What may be let through of the bytes shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FeedResult {
    /// Bytes of earlier calls: the start of a head that is whole now, and its end. Come first.
    pub held: Vec<u8>,
    /// A part of the bytes shown.
    pub pass: Range<usize>,
    /// How many heads are in there.
    pub heads: u64,
    /// What comes after is refused: nothing else will be let through, ever.
    pub violation: Option<Violation>,
}

/// Where the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPhase {
    /// Between two requests.
    Between,
    /// In a head that is not whole.
    Head,
    /// In a body.
    Body,
    /// Behind a request to become a WebSocket.
    Upgrade,
    /// Behind something that was refused.
    Rejected,
}

#[derive(Debug, Clone)]
enum State {
    Head(HeadScan),
    Length(u64),
    Chunked(Chunks),
    Upgrade,
    Rejected,
}

/// The framing of one connection.
#[derive(Debug, Clone)]
pub struct Framing {
    limits: Limits,
    state: State,
    /// A head that is not whole yet, or what came behind a request to become a WebSocket.
    held: Vec<u8>,
}

impl Framing {
    /// At the start of a connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Head(HeadScan::default()), held: Vec::new() }
    }

    /// Where the stream stands.
    #[must_use]
    pub fn phase(&self) -> RequestPhase {
        match &self.state {
            State::Head(scan) if scan.length == scan.start => RequestPhase::Between,
            State::Head(_) => RequestPhase::Head,
            State::Length(_) | State::Chunked(_) => RequestPhase::Body,
            State::Upgrade => RequestPhase::Upgrade,
            State::Rejected => RequestPhase::Rejected,
        }
    }

    /// How many bytes are kept back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What came behind a request to become a WebSocket.
    #[must_use]
    pub fn into_held(self) -> Vec<u8> {
        self.held
    }

    /// Refuses what is on its way for a reason that lies outside.
    pub fn reject(&mut self) {
        self.state = State::Rejected;
        self.held = Vec::new();
    }

    /// Looks at the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> FeedResult {
        let mut fed = FeedResult::default();
        let mut at = 0;
        while at < bytes.len() && fed.violation.is_none() {
            at = match &mut self.state {
                State::Head(_) => self.feed_head(bytes, at, &mut fed),
                State::Length(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    *left -= take as u64;
                    if *left == 0 {
                        self.state = State::Head(HeadScan::default());
                    }
                    fed.pass.end = at + take;
                    at + take
                }
                State::Chunked(chunks) => match chunks.feed(&bytes[at..]) {
                    Ok((sound, ended)) => {
                        if ended {
                            self.state = State::Head(HeadScan::default());
                        }
                        fed.pass.end = at + sound;
                        at + sound
                    }
                    Err((sound, why)) => {
                        fed.pass.end = at + sound;
                        fed.violation = Some(why);
                        at
                    }
                },
                State::Upgrade => {
                    self.held.extend_from_slice(&bytes[at..]);
                    bytes.len()
                }
                State::Rejected => bytes.len(),
            };
        }
        if fed.violation.is_some() {
            self.reject();
        }
        fed.pass.start = fed.pass.start.min(fed.pass.end);
        fed
    }

    /// Returns where to go on.
    fn feed_head(&mut self, bytes: &[u8], from: usize, fed: &mut FeedResult) -> usize {
        let State::Head(scan) = &mut self.state else { return from };
        let found = match scan.feed(&bytes[from..], self.limits.head_bytes) {
            Ok(found) => found,
            Err(why) => {
                fed.violation = Some(why);
                return from;
            }
        };
        let Some(length) = found else {
            self.held.extend_from_slice(&bytes[from..]);
            return bytes.len();
        };
        let (start, end) = (scan.start, from + length);
        let parsed = if self.held.is_empty() {
            head::parse(bytes.get(from + start..end).unwrap_or_default(), self.limits.fields)
        } else {
            self.held.extend_from_slice(&bytes[from..end]);
            head::parse(self.held.get(start..).unwrap_or_default(), self.limits.fields)
        };
        let head = match parsed {
            Ok(head) => head,
            Err(why) => {
                fed.violation = Some(why);
                return from;
            }
        };
        if !self.held.is_empty() {
            fed.held = std::mem::take(&mut self.held);
            fed.pass.start = end;
        }
        fed.pass.end = end;
        fed.heads += 1;
        self.state = match head.body {
            _ if head.websocket => State::Upgrade,
            Length::Known(0) => State::Head(HeadScan::default()),
            Length::Known(length) => State::Length(length),
            Length::Chunked => State::Chunked(Chunks::new(self.limits.fields)),
        };
        end
    }
}

/// Looks for the empty line at the end of a head, and at what may not be in it anywhere.
#[derive(Debug, Clone, Default)]
struct HeadScan {
    /// Bytes so far, empty lines before the request line included.
    length: usize,
    /// Where the request line starts.
    start: usize,
    /// Bytes of the current line without its end.
    line: usize,
    /// The request line has ended.
    in_fields: bool,
    after_cr: bool,
}

impl HeadScan {
    /// How many of the bytes belong to the head, if it ends in them.
    fn feed(&mut self, bytes: &[u8], max: usize) -> Result<Option<usize>, Violation> {
        for (at, byte) in bytes.iter().enumerate() {
            if self.length == 0 && *byte == TLS_HANDSHAKE {
                return Err(Violation::Tls);
            }
            self.length += 1;
            if self.length > max {
                return Err(Violation::HeadTooLarge);
            }
            match (self.after_cr, byte) {
                (true, b'\n') => {
                    self.after_cr = false;
                    if std::mem::take(&mut self.line) > 0 {
                        self.in_fields = true;
                    } else if self.in_fields {
                        return Ok(Some(at + 1));
                    } else {
                        self.start = self.length;
                        if self.start > EMPTY_LINES * 2 {
                            return Err(Violation::RequestLine);
                        }
                    }
                }
                (true, _) | (false, b'\n') => return Err(Violation::LineEnd),
                (false, b'\r') => self.after_cr = true,
                (false, b'\t' | 0x20..=0x7e | 0x80..) => {
                    self.line += 1;
                    if !self.in_fields && self.line > REQUEST_LINE {
                        return Err(Violation::TargetTooLong);
                    }
                }
                (false, _) => return Err(Violation::Control),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
