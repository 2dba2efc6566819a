//! Common log format of Traefik.
//!
//! Traefik escapes `"` in referer and user agent only: query and X-Forwarded-For are as the client
//! sent them. So a line is parsed from its end, which a client cannot forge, and rejected if
//! several beginnings match.

use super::{AccessLine, first_address, named, path_of};
use crate::edge::{BadLine, text::redacted, time};

/// Length of ` [22/Aug/2026:10:00:01 +0000] "` between user and request.
const START: usize = 26;

pub(super) fn parse(line: &str) -> Result<AccessLine, BadLine> {
    let mut fronts = line.match_indices(" [").filter_map(|(at, _)| front(line, at));
    let Some(front) = fronts.next() else {
        let ours = line.contains(" - - [");
        return Err(if ours { BadLine::Unreadable("no time of start") } else { BadLine::Other });
    };
    if fronts.next().is_some() {
        return Err(BadLine::Unreadable("a client's text looks like the line itself"));
    }
    let (rest, tail) = tail(front.rest).ok_or(BadLine::Unreadable("no duration: cut, or genericCLF"))?;
    let (request, status) = request(rest).ok_or(BadLine::Unreadable("no status where it should stand"))?;
    let (method, target) = request.split_once(' ').ok_or(BadLine::Unreadable("no method"))?;
    let (target, _) = target.rsplit_once(' ').ok_or(BadLine::Unreadable("no protocol"))?;
    Ok(AccessLine {
        first_address: first_address(front.host),
        client_host: redacted(front.host),
        start_ms: front.start_ms,
        start_exact: false,
        duration_ms: tail.ms,
        status,
        method: redacted(method),
        path: path_of(target),
        router: named(tail.router),
        service_url: named(tail.service),
        request_count: tail.count,
        ray: None,
    })
}

struct Front<'a> {
    host: &'a str,
    start_ms: i64,
    rest: &'a str,
}

/// `HOST - USER [START] "`, with the bracket at `at`.
fn front(line: &str, at: usize) -> Option<Front<'_>> {
    let start = line.get(at + 2..at + 2 + START)?;
    let rest = line.get(at + 2 + START..)?.strip_prefix("] \"")?;
    let start_ms = time::common(start)?;
    let (before, user) = line.get(..at)?.rsplit_once(' ')?;
    let host = before.strip_suffix(" -").filter(|host| !host.is_empty() && !user.is_empty())?;
    Some(Front { host, start_ms, rest })
}

struct Tail<'a> {
    count: Option<u64>,
    router: &'a str,
    service: &'a str,
    ms: u64,
}

/// ` COUNT "ROUTER" "SERVICE" Nms` at the end, and the text before it.
fn tail(rest: &str) -> Option<(&str, Tail<'_>)> {
    let (rest, ms) = rest.strip_suffix("ms")?.rsplit_once(' ')?;
    let (rest, service) = quoted(rest)?;
    let (rest, router) = quoted(rest.strip_suffix(' ')?)?;
    let (rest, count) = rest.strip_suffix(' ')?.rsplit_once(' ')?;
    let count = if count == "-" { None } else { Some(number(count)?) };
    Some((rest, Tail { count, router, service, ms: number(ms)? }))
}

/// A quoted name at the end; an escaped quote is part of a user agent.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let (rest, name) = text.strip_suffix('"')?.rsplit_once('"')?;
    (!rest.ends_with('\\') && !name.ends_with('\\')).then_some((rest, name))
}

/// `REQUEST" STATUS SIZE "REFERER" "AGENT"`: the request and the status. In referer and agent every
/// quote has a backslash before it, so neither `" "` nor `" 0 0 "` can occur in them, and the last
/// of each belongs to the line, whatever the query contains.
fn request(rest: &str) -> Option<(&str, Option<u16>)> {
    let inside = rest.strip_suffix('"')?;
    let (before, _agent) = inside.rsplit_once("\" \"")?;
    let mut ends = before.rmatch_indices("\" ").map(|(at, _)| before.split_at(at));
    ends.find_map(|(request, after)| {
        let mut fields = after.strip_prefix("\" ")?.splitn(3, ' ');
        let (status, size, referer) = (fields.next()?, fields.next()?, fields.next()?);
        let whole = referer.starts_with('"') && (size == "-" || number(size).is_some());
        let status = if status == "-" { None } else { Some(u16::try_from(number(status)?).ok()?) };
        whole.then_some((request, status))
    })
}

/// Only digits.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}
