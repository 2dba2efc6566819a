//! Text lines of cloudflared (zerolog's console writer). The message is not quoted, so it ends
//! where the rest of the line is ` key=value`; values with blanks are quoted as in Go.

use std::collections::BTreeMap;

use super::{Level, Raw};
use crate::edge::{BadLine, time};

pub(super) fn parse(line: &str) -> Result<Raw, BadLine> {
    let plain = without_colours(line);
    let line = plain.as_deref().unwrap_or(line);
    let (at, rest) = line.split_once(' ').ok_or(BadLine::Other)?;
    let at_ms = time::rfc3339(at).ok_or(BadLine::Other)?;
    let level = rest.get(..3).and_then(level).ok_or(BadLine::Other)?;
    let rest = rest.get(3..).unwrap_or_default();
    if !(rest.is_empty() || rest.starts_with(' ')) {
        return Err(BadLine::Other);
    }
    // An empty message leaves two blanks.
    let rest = rest.strip_prefix(' ').filter(|rest| rest.starts_with(' ')).unwrap_or(rest);
    let (message, fields) = split(rest);
    if message.contains(" error=\"") {
        return Err(BadLine::Unreadable("cut inside a quoted value"));
    }
    Ok(Raw { at_ms, level, message: message.trim().to_owned(), fields })
}

fn level(word: &str) -> Option<Level> {
    Some(match word {
        "TRC" | "DBG" => Level::Debug,
        "INF" => Level::Info,
        "WRN" => Level::Warn,
        "ERR" => Level::Error,
        "FTL" | "PNC" => Level::Fatal,
        _ => return None,
    })
}

/// The message and the fields after it. Text like a field that is followed by other text is part of
/// the message.
fn split(text: &str) -> (&str, BTreeMap<String, String>) {
    let mut fields = BTreeMap::new();
    let mut end_of_message = text.len();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some((key, value, length)) = field(rest) {
            if fields.is_empty() {
                end_of_message = at;
            }
            fields.entry(key.to_owned()).or_insert(value);
            at += length;
        } else {
            fields.clear();
            end_of_message = text.len();
            at += 1 + rest.get(1..).and_then(|rest| rest.find(' ')).unwrap_or(rest.len());
        }
    }
    (text.get(..end_of_message).unwrap_or_default(), fields)
}

/// ` key=value` at the beginning, up to the next blank or the end.
fn field(text: &str) -> Option<(&str, String, usize)> {
    let inside = text.strip_prefix(' ')?;
    let end = inside.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')))?;
    let (key, value) = inside.split_at(end);
    let value = value.strip_prefix('=')?;
    if !key.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let before = 1 + key.len() + 1;
    if let Some(inside) = value.strip_prefix('"') {
        let (value, length) = unquoted(inside)?;
        let length = before + 1 + length;
        return matches!(text.as_bytes().get(length), None | Some(b' ')).then_some((key, value, length));
    }
    let end = value.find(' ').unwrap_or(value.len());
    Some((key, value.get(..end)?.to_owned(), before + end))
}

/// Go's quoted text after its first quote; the length includes the last one. `None` for an escape
/// that Go does not write: a guess could break the name by which a credential is recognized.
fn unquoted(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, at + 1)),
            '\\' => {
                let code = |chars: &mut std::str::CharIndices<'_>, digits: usize| {
                    let hex: String = chars.take(digits).map(|(_, c)| c).collect();
                    let whole = hex.len() == digits && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
                    whole.then(|| u32::from_str_radix(&hex, 16).ok())?
                };
                value.push(match chars.next()?.1 {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'a' => '\u{7}',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'v' => '\u{b}',
                    // From 0x80 on: a byte that was not UTF-8.
                    'x' => u8::try_from(code(&mut chars, 2)?)
                        .ok()
                        .filter(u8::is_ascii)
                        .map_or('\u{fffd}', char::from),
                    'u' => char::from_u32(code(&mut chars, 4)?).unwrap_or('\u{fffd}'),
                    'U' => char::from_u32(code(&mut chars, 8)?).unwrap_or('\u{fffd}'),
                    itself @ ('\\' | '"' | '\'') => itself,
                    _ => return None,
                });
            }
            c => value.push(c),
        }
    }
    None
}

/// Removes terminal colours; `None` without any.
fn without_colours(line: &str) -> Option<String> {
    let mut pieces = line.split("\x1b[");
    let mut plain = pieces.next()?.to_owned();
    let mut coloured = false;
    for piece in pieces {
        coloured = true;
        plain.push_str(piece.split_once('m').map_or(piece, |(_, rest)| rest));
    }
    coloured.then_some(plain)
}
