//! Record as a line of logfmt, for journald's MESSAGE and Loki's `| logfmt`.
//!
//! A value cannot forge a field or a line: blanks, quotes, `=`, and control characters force
//! quoting, and inside quotes `"`, `\` and control characters are escaped.

use std::{borrow::Cow, collections::BTreeMap};

use crate::record::{AttemptsRecord, BadRecord, BurstRecord, CloseRecord, OpenRecord, TcpCloseRecord};

/// Prefix of a `ws close` line.
pub const CLOSE: &str = "ws close";
/// Prefix of a `ws open` line.
pub const OPEN: &str = "ws open";
/// Prefix of a `ws burst` line.
pub const BURST: &str = "ws burst";
/// Prefix of a `ws attempts` line.
pub const ATTEMPTS: &str = "ws attempts";
/// Prefix of a `tcp close` line: no query for `ws close` matches it.
pub const TCP_CLOSE: &str = "tcp close";

/// A line that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// Wrong prefix.
    #[error("expected a line that starts with {0:?}")]
    NotThis(&'static str),
    /// Invalid logfmt.
    #[error("invalid logfmt at byte {0}")]
    Syntax(usize),
    /// A key is missing or has a bad value.
    #[error(transparent)]
    Record(#[from] BadRecord),
}

macro_rules! lines {
    ($($name:ident = $words:ident by $line:ident),+) => {$(
        impl $name {
            /// Formats the record as one line.
            #[must_use]
            pub fn to_line(&self) -> String {
                $line($words, &self.pairs())
            }

            /// Parses a line.
            ///
            /// # Errors
            /// [`BadLine`] for any other line.
            pub fn from_line(text: &str) -> Result<Self, BadLine> {
                let rest = text.strip_prefix($words).ok_or(BadLine::NotThis($words))?;
                let offset = text.len() - rest.len();
                let pairs = parse(rest).map_err(|at| BadLine::Syntax(offset + at))?;
                let map: BTreeMap<_, _> = pairs.into_iter().collect();
                Ok(Self::from_pairs(|key| map.get(key).map(|value| Cow::Borrowed(value.as_ref())))?)
            }
        }
    )+};
}

lines!(
    CloseRecord = CLOSE by line,
    OpenRecord = OPEN by line,
    BurstRecord = BURST by line,
    AttemptsRecord = ATTEMPTS by line,
    TcpCloseRecord = TCP_CLOSE by line_without_ws_close
);

/// As [`line`], for a record that no query for `ws close` may match: any user can give a process
/// that name. A value with a blank is quoted, and `\u0020` is a blank in quotes.
fn line_without_ws_close(words: &str, pairs: &[(&'static str, String)]) -> String {
    line(words, pairs).replace(CLOSE, r"ws\u0020close")
}

fn line(words: &str, pairs: &[(&'static str, String)]) -> String {
    let mut out = String::with_capacity(512);
    out.push_str(words);
    for (key, value) in pairs {
        out.push(' ');
        out.push_str(key);
        out.push('=');
        push_value(&mut out, value);
    }
    out
}

/// Appends a value, quoted if logfmt requires it.
pub fn push_value(out: &mut String, value: &str) {
    let plain = !value.is_empty()
        && !value.chars().any(|c| {
            c <= ' '
                || matches!(c, '"' | '=' | '\\')
                || c.is_control()
                || c == '\u{2028}'
                || c == '\u{2029}'
                || c == '\u{fffd}'
        });
    if plain {
        out.push_str(value);
        return;
    }
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Splits logfmt into keys and values; later duplicates follow earlier ones.
///
/// # Errors
/// Byte offset of the first invalid character.
pub fn parse(text: &str) -> Result<Vec<(&str, Cow<'_, str>)>, usize> {
    let bytes = text.as_bytes();
    let mut pairs = Vec::new();
    let mut at = 0;
    loop {
        while bytes.get(at).is_some_and(|b| *b == b' ') {
            at += 1;
        }
        if at == bytes.len() {
            return Ok(pairs);
        }
        let start = at;
        while bytes.get(at).is_some_and(|b| !matches!(b, b'=' | b' ' | b'"')) {
            at += 1;
        }
        if start == at || bytes.get(at) != Some(&b'=') {
            return Err(at);
        }
        let key = &text[start..at];
        at += 1;
        if bytes.get(at) == Some(&b'"') {
            let (value, end) = quoted(text, at + 1)?;
            pairs.push((key, Cow::Owned(value)));
            at = end;
        } else {
            let start = at;
            while bytes.get(at).is_some_and(|b| *b != b' ') {
                at += 1;
            }
            pairs.push((key, Cow::Borrowed(&text[start..at])));
        }
    }
}

/// Reads after the opening quote; returns the value and the offset after the closing one.
fn quoted(text: &str, from: usize) -> Result<(String, usize), usize> {
    let mut value = String::new();
    let mut chars = text[from..].char_indices();
    while let Some((offset, c)) = chars.next() {
        let here = from + offset;
        match c {
            '"' => return Ok((value, here + 1)),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(c @ ('"' | '\\')) => value.push(c),
                Some('u') => {
                    let hex: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                    let code = u32::from_str_radix(&hex, 16).map_err(|_| here)?;
                    value.push(char::from_u32(code).ok_or(here)?);
                }
                _ => return Err(here),
            },
            c => value.push(c),
        }
    }
    Err(text.len())
}
