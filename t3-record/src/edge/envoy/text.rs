//! Text formats of Envoy: its default and Istio's, which has the details after the flags.
//!
//! `[START] "METHOD PATH PROTOCOL" CODE FLAGS ... DURATION UPSTREAM_TIME "X-FORWARDED-FOR" ...`

use super::Raw;
use crate::edge::BadLine;

/// Longest set of response flags, in bytes.
const FLAGS: usize = 64;

pub(super) fn parse(line: &str) -> Result<Raw<'_>, BadLine> {
    let Some((start, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] \"")) else {
        return Err(BadLine::Other);
    };
    // Path and headers are as the client sent them and can contain this place of the line, too.
    let mut readings = rest.match_indices("\" ").filter_map(|(at, _)| {
        let (request, after) = rest.split_at(at);
        Some((request, tail(after.get(2..)?)?))
    });
    let (request, tail) =
        readings.next().ok_or(BadLine::Unreadable("no flags and times after the request"))?;
    if readings.next().is_some() {
        return Err(BadLine::Unreadable("a client's text looks like the line itself"));
    }
    let (_, target) = request.split_once(' ').ok_or(BadLine::Unreadable("no method"))?;
    let (path, _) = target.rsplit_once(' ').ok_or(BadLine::Unreadable("no protocol"))?;
    Ok(Raw { start, path, ..tail })
}

/// `CODE FLAGS [DETAILS TERMINATION "REASON"] RECEIVED SENT DURATION UPSTREAM_TIME "FORWARDED" `.
fn tail(text: &str) -> Option<Raw<'_>> {
    let (code, rest) = text.split_once(' ')?;
    let (flags, rest) = rest.split_once(' ')?;
    let is_flag = |flag: &str| !flag.is_empty() && flag.bytes().all(|b| b.is_ascii_uppercase());
    if number(code).is_none() || flags.len() > FLAGS || !(flags == "-" || flags.split(',').all(is_flag)) {
        return None;
    }
    let (details, rest) = match numbers(rest) {
        Some(_) => ("-", rest),
        None => {
            let (details, rest) = rest.split_once(' ')?;
            let (_, rest) = rest.split_once(" \"")?;
            (details, rest.split_once("\" ")?.1)
        }
    };
    let (duration, rest) = numbers(rest)?;
    let forwarded_for = rest.split_once("\" ").map_or(rest, |(forwarded, _)| forwarded);
    let given = |text: &&str| *text != "-";
    Some(Raw {
        duration,
        status: Some(code),
        flags: Some(flags).filter(given),
        details: Some(details).filter(given),
        forwarded_for: Some(forwarded_for).filter(given),
        ..Raw::default()
    })
}

/// `RECEIVED SENT DURATION UPSTREAM_TIME "`: the duration, and the text after the quote.
fn numbers(text: &str) -> Option<(&str, &str)> {
    let mut words = text.splitn(5, ' ');
    let (received, sent, duration) = (words.next()?, words.next()?, words.next()?);
    let (upstream, rest) = (words.next()?, words.next()?.strip_prefix('"')?);
    number(received)?;
    number(sent)?;
    number(duration)?;
    (upstream == "-" || number(upstream).is_some()).then_some((duration, rest))
}

/// Only digits.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}
