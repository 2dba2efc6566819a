//! What the layers in front of this machine logged about a close: lines of Traefik and cloudflared
//! as values, which line belongs to which close, and what they add to `segment=downstream`. Pure:
//! lines and records in, values out; fetching them is `t3_trace::layers`.
//!
//! Formats: `docs/EDGE-LOGS.md`. Log lines hold what strangers sent: nothing here trusts them, and
//! no query string leaves a parser.

pub mod cloudflared;
pub mod refine;
mod text;
mod time;
pub mod traefik;

pub use refine::{Join, Layers, Part, Refinement, refine};
pub use text::redacted;

use crate::record::CloseRecord;

/// Lines that were read, and what could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading<T> {
    /// The lines, in the order they came.
    pub lines: Vec<T>,
    /// How many lines should have been of this kind and could not be parsed.
    pub unread: u64,
    /// One of them, without what stands after a `?`.
    pub sample: Option<String>,
    /// Not everything of the time around the close was read: a limit was reached.
    pub cut: bool,
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), unread: 0, sample: None, cut: false }
    }
}

impl<T> Reading<T> {
    /// Takes one more line: keeps it, counts it, or passes over what is of another kind.
    pub fn take(&mut self, line: &str, parsed: Result<T, BadLine>) {
        match parsed {
            Ok(value) => self.lines.push(value),
            Err(BadLine::Other) => {}
            Err(BadLine::Unreadable(_)) => {
                self.unread += 1;
                self.sample.get_or_insert_with(|| sample(line));
            }
        }
    }
}

/// A line was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// It is of another kind: no access line, no cloudflared line. Nothing is lost.
    #[error("another kind of line")]
    Other,
    /// It should be of this kind and is broken, cut or of a format that is not known.
    #[error("unreadable: {0}")]
    Unreadable(&'static str),
}

/// A close with the wall clock's time of its record, which the record itself does not hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ended<'a> {
    /// The record.
    pub record: &'a CloseRecord,
    /// When it was written, in milliseconds since the epoch.
    pub at_ms: i64,
}

impl Ended<'_> {
    /// When the session opened, in milliseconds since the epoch.
    #[must_use]
    pub fn opened_ms(&self) -> i64 {
        self.at_ms.saturating_sub(i64::try_from(self.record.dur_ms).unwrap_or(i64::MAX))
    }
}

/// At most so much of a line is kept as a sample, in characters.
const SAMPLE: usize = 200;

/// A line longer than this is nobody's, in bytes.
const LONGEST: usize = 65_536;

/// A line's beginning, every query string left out: a `wsTicket` is a credential. The whole line is
/// gone through first, since a cut may not part a credential from its name.
fn sample(line: &str) -> String {
    text::redacted(line.trim_end()).chars().take(SAMPLE).collect()
}

/// A `Cf-Ray`, if the text can be one; a header that was redacted or is not there is none.
fn ray(text: &str) -> Option<String> {
    let well_formed = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (well_formed && !matches!(text, "" | "-" | "REDACTED")).then(|| text.to_owned())
}
