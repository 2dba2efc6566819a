//! Framing of a connection: request boundaries, and the client's bytes that may be forwarded. Pure.
//!
//! A head is forwarded when it is complete and valid, so that no part of a rejected one is
//! forwarded; a body is forwarded as it arrives. A head that arrives in one read, the usual case,
//! is not copied.

use std::ops::Range;

use super::{
    Limits, Violation,
    chunked::Chunks,
    head::{self, Length},
};

/// Maximum length of a request line, in bytes. RFC 9112 section 3 asks for at least 8000 bytes.
const REQUEST_LINE: usize = 16 * 1024;
/// Empty lines before a request line are ignored (RFC 9112 section 2.2), up to this limit.
const EMPTY_LINES: usize = 2;
/// Record type of a TLS handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Bytes that may be forwarded after a call of [`Framing::feed`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FeedResult {
    /// A complete head that started in an earlier call. Forwarded first.
    pub held: Vec<u8>,
    /// Part of the bytes of this call.
    pub pass: Range<usize>,
    /// Number of heads in these bytes.
    pub heads: u64,
    /// Violation in the bytes that follow; nothing more will be forwarded.
    pub violation: Option<Violation>,
}

/// Position in the request stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPhase {
    /// Between two requests.
    Between,
    /// In an incomplete head.
    Head,
    Body,
    /// After a WebSocket upgrade.
    Upgrade,
    /// After a rejected request.
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
    /// An incomplete head, or the bytes after a WebSocket upgrade.
    held: Vec<u8>,
}

impl Framing {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Head(HeadScan::default()), held: Vec::new() }
    }

    /// Position in the request stream.
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

    /// Number of bytes that are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns the bytes after a WebSocket upgrade.
    #[must_use]
    pub fn into_held(self) -> Vec<u8> {
        self.held
    }

    /// Rejects the current request for an external reason, such as a timeout.
    pub fn reject(&mut self) {
        self.state = State::Rejected;
        self.held = Vec::new();
    }

    /// Parses more bytes.
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

    /// Returns the position after the parsed bytes.
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
            hold(&mut self.held, &bytes[from..], self.limits.head_bytes);
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

/// Appends bytes; the capacity doubles, but not beyond `most`.
fn hold(held: &mut Vec<u8>, bytes: &[u8], most: usize) {
    let length = held.len() + bytes.len();
    if length > held.capacity() {
        let capacity = (held.capacity() * 2).min(most).max(length);
        held.reserve_exact(capacity - held.len());
    }
    held.extend_from_slice(bytes);
}

/// Scanner for the end of a head and for bytes that are invalid anywhere in it.
#[derive(Debug, Clone, Default)]
struct HeadScan {
    /// Bytes so far, including empty lines before the request line.
    length: usize,
    /// Offset of the request line.
    start: usize,
    /// Bytes of the current line without its end.
    line: usize,
    /// The request line has ended.
    in_fields: bool,
    after_cr: bool,
}

impl HeadScan {
    /// Returns how many of the bytes belong to the head, if it ends in them.
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
