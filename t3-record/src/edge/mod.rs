//! Logs of the edge (Cloudflare, cloudflared, Traefik, Envoy, HAProxy) about a close: parsers, the
//! line of a session, and the refinement of `segment=downstream`. Pure; t3-trace-cli reads the
//! logs.
//!
//! Formats: `docs/EDGE-LOGS.md`. Log lines contain client input: nothing here trusts them, and no
//! query string leaves a parser.

pub mod cloudflared;
pub mod envoy;
pub mod haproxy;
pub mod logpush;
pub mod refine;
pub mod statement;
mod text;
mod time;
pub mod traefik;

pub use refine::{Join, Layers, Part, Refinement, refine};
pub use statement::{Closer, Statement, Witness};
pub use text::redacted;

use crate::record::CloseRecord;

/// Parsed lines, and counts of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading<T> {
    /// Lines in input order.
    pub lines: Vec<T>,
    /// Number of lines of this kind that cannot be parsed.
    pub unread: u64,
    /// One of them, without query strings.
    pub sample: Option<String>,
    /// Incomplete: a limit was reached.
    pub cut: bool,
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), unread: 0, sample: None, cut: false }
    }
}

impl<T> Reading<T> {
    /// Adds a line: keeps it, counts it, or ignores another kind.
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

/// A line without a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// A line of another log.
    #[error("another kind of line")]
    Other,
    /// A broken or truncated line, or an unknown format.
    #[error("unreadable: {0}")]
    Unreadable(&'static str),
}

/// A close with the wall-clock time of its record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ended<'a> {
    /// The record.
    pub record: &'a CloseRecord,
    /// Time of the record, in milliseconds since the epoch.
    pub at_ms: i64,
}

impl Ended<'_> {
    /// Time of the open, in milliseconds since the epoch.
    #[must_use]
    pub fn opened_ms(&self) -> i64 {
        self.at_ms.saturating_sub(i64::try_from(self.record.dur_ms).unwrap_or(i64::MAX))
    }
}

/// Limit of a sample, in characters.
const SAMPLE: usize = 200;

/// Limit of a line, in bytes.
const LONGEST: usize = 65_536;

/// Beginning of a line without query strings, because `wsTicket` is a credential. Redaction
/// precedes truncation, so that a credential keeps its name.
fn sample(line: &str) -> String {
    text::redacted(line.trim_end()).chars().take(SAMPLE).collect()
}

/// Returns a `Cf-Ray` if the text can be one; a redacted or missing header is `None`.
fn ray(text: &str) -> Option<String> {
    let well_formed = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (well_formed && !matches!(text, "" | "-" | "REDACTED")).then(|| text.to_owned())
}
