//! The record as one line of logfmt, as journald's MESSAGE and Loki's `| logfmt` read it.
//!
//! A value can never forge a field or a line: blanks, quotes, `=`, and control characters force
//! quoting, and inside quotes `"`, `\` and control characters are escaped.

use std::{borrow::Cow, collections::BTreeMap};

use crate::record::{BadRecord, BurstRecord, CloseRecord, OpenRecord};

/// The words a `ws close` line starts with.
pub const CLOSE: &str = "ws close";
/// The words a `ws open` line starts with.
pub const OPEN: &str = "ws open";
/// The words a `ws burst` line starts with.
pub const BURST: &str = "ws burst";

/// A line could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// It does not start with the record's words.
    #[error("the line does not start with {0:?}")]
    NotThis(&'static str),
    /// Its logfmt is broken.
    #[error("broken logfmt at byte {0}")]
    Syntax(usize),
    /// A key is missing or has a bad value.
    #[error(transparent)]
    Record(#[from] BadRecord),
}

macro_rules! lines {
    ($($name:ident = $words:ident),+) => {$(
        impl $name {
            /// The record as one line.
            #[must_use]
            pub fn to_line(&self) -> String {
                line($words, &self.pairs())
            }

            /// The record from its line.
            ///
            /// # Errors
            /// [`BadLine`] when it is not such a line.
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

lines!(CloseRecord = CLOSE, OpenRecord = OPEN, BurstRecord = BURST);

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

/// Appends a value, quoted where logfmt asks for it.
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
/// The byte offset of the first thing that is not logfmt.
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

/// Reads from after the opening quote; gives the value and the offset after the closing one.
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
