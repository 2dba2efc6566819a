//! HAProxy's HTTP log (`option httplog`), with `%[term_events]` after it where configured.
//!
//! HAProxy escapes quotes, braces and `|` in captured headers and in the request, so the fields
//! before them and the text after the request belong to the line. A date without a zone is UTC.
//! Formats: HAProxy's configuration manual, sections 8.2.3 and 8.5.

mod term_events;

use std::net::IpAddr;

use super::{
    BadLine, LONGEST,
    statement::{Closer, Statement, Witness, agreed},
    text::unframed,
    time,
    traefik::{first_address, path_of},
};

/// Name of the key in front of the value of `term_events`.
const EVENTS: &str = "term_events=";

/// Parses a line.
///
/// # Errors
/// [`BadLine::Other`] for a line of another log, [`BadLine::Unreadable`] for a broken one.
pub fn parse(line: &str) -> Result<Statement, BadLine> {
    let line = unframed(line);
    if line.len() > LONGEST {
        return Err(BadLine::Unreadable("longer than 64 KiB"));
    }
    // The first date belongs to the line: no text of a client comes before it.
    let front = line.match_indices(" [").find_map(|(at, _)| front(line, at)).ok_or(BadLine::Other)?;
    let fields = fields(front.rest).ok_or(BadLine::Unreadable("not in the format of option httplog"))?;
    let Some((captured, request, after)) = request(fields.rest) else {
        return Err(BadLine::Unreadable("no complete request at the end: see len of the log option"));
    };
    let mut words = request.split(' ');
    let (_, target) = (words.next(), words.next().ok_or(BadLine::Unreadable("no target"))?);
    let events = after.split(' ').find_map(|word| term_events::parse(word.trim_start_matches(EVENTS)));
    let state = of_state(fields.state);
    let values = match &events {
        Some(events) => {
            format!("termination state {}, {EVENTS}{} ({})", fields.state, events.text, events.first)
        }
        None => format!("termination state {}", fields.state),
    };
    Ok(Statement {
        witness: Witness::Haproxy,
        start_ms: Some(front.start_ms),
        end_ms: front.start_ms.saturating_add(fields.duration_ms),
        address: captured.split('|').find_map(address),
        path: Some(path_of(target)),
        ray: captured.split(['|', ' ']).find_map(ray),
        status: fields.status.parse().ok(),
        closer: agreed([state, events.map_or(Closer::Unstated, |events| events.closer)]),
        values,
    })
}

struct Front<'a> {
    start_ms: i64,
    rest: &'a str,
}

/// `ADDRESS:PORT [DATE] `, with the bracket at `at`.
fn front(line: &str, at: usize) -> Option<Front<'_>> {
    let (date, rest) = line.get(at + 2..)?.split_once("] ")?;
    let peer = line.get(..at)?.rsplit(' ').next()?;
    let (_, port) = peer.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    Some(Front { start_ms: time::common_local(date)?, rest })
}

struct Fields<'a> {
    duration_ms: i64,
    status: &'a str,
    state: &'a str,
    rest: &'a str,
}

/// `FRONTEND BACKEND/SERVER TIMERS STATUS BYTES COOKIE COOKIE STATE CONNECTIONS QUEUES ...`.
fn fields(text: &str) -> Option<Fields<'_>> {
    let mut words = text.splitn(11, ' ');
    let (_frontend, server, timers) = (words.next()?, words.next()?, words.next()?);
    let (status, bytes, _, _) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let (state, connections, queues, rest) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let parts = |text: &str| text.split('/').count();
    bytes.parse::<u64>().ok()?;
    let whole = server.contains('/') && (parts(connections), parts(queues)) == (5, 2) && parts(timers) == 5;
    let is_state = state.len() == 4 && state.bytes().all(|b| b == b'-' || b.is_ascii_alphabetic());
    // A `+` before the last timer: written before the end (option logasap).
    let duration_ms = timers.rsplit('/').next()?.parse::<u32>().ok()?.into();
    let digits = !timers.contains('+');
    (whole && is_state && digits).then_some(Fields { duration_ms, status, state, rest })
}

/// Captured headers of the request, the request, and the text after it.
fn request(rest: &str) -> Option<(&str, &str, &str)> {
    let (before, quoted) = rest.split_once('"')?;
    let (request, after) = quoted.split_once('"')?;
    let captured =
        before.strip_prefix('{').and_then(|text| text.split_once('}')).map_or("", |(text, _)| text);
    Some((captured, request, after))
}

/// First address of a captured header, if it is one.
fn address(captured: &str) -> Option<IpAddr> {
    first_address(captured)
}

/// Only 16 hexadecimal digits, and the data centre: captured headers have no names.
fn ray(captured: &str) -> Option<String> {
    let (id, place) = captured.split_once('-')?;
    let is_ray = id.len() == 16
        && id.bytes().all(|b| b.is_ascii_hexdigit())
        && place.len() == 3
        && place.bytes().all(|b| b.is_ascii_uppercase());
    is_ray.then(|| captured.to_owned())
}

/// First character of the termination state: the first event that ended the session. A tunnel that
/// is idle on both sides is logged as a timeout of the client (`cD`, observed with 2.6.12), and one
/// that a FIN ended as `--`.
fn of_state(state: &str) -> Closer {
    match state.as_bytes().first() {
        Some(b'C') => Closer::Downstream,
        Some(b'S') => Closer::Upstream,
        // Proxy, local, resource, internal, server down or up again, administrator.
        Some(b'P' | b'L' | b'R' | b'I' | b'D' | b'U' | b'K') => Closer::Itself,
        Some(b'c' | b's') => Closer::TimedOut,
        _ => Closer::Unstated,
    }
}

#[cfg(test)]
mod tests;
