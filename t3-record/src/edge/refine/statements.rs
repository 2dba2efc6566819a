//! Statements of Cloudflare, Envoy and HAProxy about the session: found by ray or by address and
//! time, compared with the order of events on this host, and narrowed to a hop.
//!
//! A statement never changes the verdict. It is about TCP: after a Close frame the server closes
//! TCP first (RFC 6455 section 7.1.1), so it does not show who closed the session.

use std::net::IpAddr;

use super::{Part, rules::RuleOutcome};
use crate::{
    edge::{Closer, Ended, Reading, Statement, Witness, statement::ray_id},
    record::CloseRecord,
    vocabulary::{ClosedBy, KernelSource, Segment, Verdict},
};

/// Path of t3's WebSockets.
const PATH: &str = "/ws";
/// Tolerance of start and duration without a ray, in milliseconds.
const TOLERANCE: i64 = 2_000;
/// Time from the start at the hop to the 101 with a ray, in milliseconds. Rays are not unique.
const BEFORE_OPEN: std::ops::RangeInclusive<i64> = -10_000..=60_000;
/// A statement later than this after the record is about another event, in milliseconds.
const LATER: i64 = 2_000;

/// Result of the search in one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found<'a> {
    One { statement: &'a Statement, by_ray: bool },
    Ambiguous(usize),
    Nothing,
}

/// Finds the statement about a session.
pub(super) fn find<'a>(ended: &Ended<'_>, statements: &'a [Statement]) -> Found<'a> {
    let ray = ended.record.ray.as_deref().map(ray_id);
    let (mut same, mut fitting): (Vec<&Statement>, Vec<&Statement>) = (Vec::new(), Vec::new());
    for statement in statements.iter().filter(|statement| is_session(statement)) {
        let theirs = statement.ray.as_deref().map(ray_id);
        let list = match (&ray, theirs) {
            (Some(ray), Some(theirs)) if *ray == theirs && opens_near(ended, statement) => &mut same,
            // Another ray is another session.
            (Some(_), Some(_)) => continue,
            // Cloudflare's records are joined by their ray only.
            _ if statement.witness != Witness::Cloudflare && fits(ended, statement) => &mut fitting,
            _ => continue,
        };
        // A line can be read twice, for example from two files.
        if !list.contains(&statement) {
            list.push(statement);
        }
    }
    let by_ray = !same.is_empty();
    match if by_ray { same } else { fitting }.as_slice() {
        [] => Found::Nothing,
        [statement] => Found::One { statement, by_ray },
        more => Found::Ambiguous(more.len()),
    }
}

/// The line can be about a WebSocket of t3: these statuses exclude a 101.
fn is_session(statement: &Statement) -> bool {
    statement.path.as_deref().is_none_or(|path| path == PATH)
        && !matches!(statement.status, Some(300..=499 | 502..=504))
}

fn opens_near(ended: &Ended<'_>, statement: &Statement) -> bool {
    match statement.start_ms {
        Some(start) => BEFORE_OPEN.contains(&ended.opened_ms().saturating_sub(start)),
        None => BEFORE_OPEN.contains(&ended.at_ms.saturating_sub(statement.end_ms)),
    }
}

fn fits(ended: &Ended<'_>, statement: &Statement) -> bool {
    let address = ended.record.ip.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    let (Some(start), Some(duration)) = (statement.start_ms, statement.duration_ms()) else { return false };
    address.is_some()
        && address == statement.address
        && ended.opened_ms().abs_diff(start) <= TOLERANCE.unsigned_abs()
        && duration.abs_diff(ended.record.dur_ms) <= TOLERANCE.unsigned_abs()
}

/// A hop, as a bit of a set.
const LAST_MILE: u8 = 1;
const EDGE: u8 = 2;
const TUNNEL: u8 = 4;
const PROXY: u8 = 8;
const ANY: u8 = LAST_MILE | EDGE | TUNNEL | PROXY;

/// Meaning of a statement for one record.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Bearing {
    /// One of these hops ended the session.
    Hops(u8),
    /// It agrees with the record and adds no hop.
    Agrees,
    /// It does not decide, with the cause.
    Open(String),
    /// It and the record exclude each other, with the observation of this host.
    Contradicts(&'static str),
}

fn bearing(ended: &Ended<'_>, statement: &Statement) -> Bearing {
    use Closer::{Both, Downstream, Itself, TimedOut, Unstated, Upstream};
    let record = ended.record;
    let cloudflare = statement.witness == Witness::Cloudflare;
    if matches!(statement.closer, Both | Unstated) {
        return Bearing::Open("which does not name the side that closed".to_owned());
    }
    if close_frame(record) {
        let why =
            "which is about TCP: after a Close frame the server ends TCP first (RFC 6455 section 7.1.1)";
        return Bearing::Open(why.to_owned());
    }
    if record.verdict == Verdict::ClientProtocol {
        return Bearing::Open("which adds nothing: the client violated the WebSocket protocol".to_owned());
    }
    let later = statement.end_ms.saturating_sub(ended.at_ms);
    if later > LATER {
        return Bearing::Open(format!(
            "{}.{} s after the record: about a later event",
            later / 1000,
            later % 1000 / 100
        ));
    }
    match (record.closed_by, statement.closer) {
        (Some(ClosedBy::Upstream | ClosedBy::Dispatch), Upstream) => Bearing::Agrees,
        (Some(ClosedBy::Upstream), _) => Bearing::Contradicts("serve ended its connection first"),
        (Some(ClosedBy::Dispatch), _) => Bearing::Contradicts("this host ended both connections first"),
        // Its connection towards serve is this host's downstream leg.
        (Some(ClosedBy::Downstream), Upstream) if !cloudflare => {
            Bearing::Contradicts("the connection from the edge ended first, before this host closed it")
        }
        (Some(ClosedBy::Downstream), TimedOut) => {
            Bearing::Open("which does not name the side that was silent".to_owned())
        }
        (Some(ClosedBy::Downstream), closer) if record.segment == Segment::Downstream => {
            Bearing::Hops(match (closer, cloudflare) {
                (Downstream, true) => LAST_MILE,
                (Downstream, false) => LAST_MILE | EDGE | TUNNEL,
                (Itself, true) => EDGE,
                (Itself, false) => PROXY,
                _ => TUNNEL | PROXY,
            })
        }
        // The client gave up on serve or on this host.
        (Some(ClosedBy::Downstream), Downstream) => Bearing::Agrees,
        (Some(ClosedBy::Downstream), _) => Bearing::Contradicts("the client gave up and closed"),
        (Some(ClosedBy::Both) | None, _) => {
            Bearing::Open("which the record cannot confirm: no first event is known".to_owned())
        }
    }
}

/// A Close frame passed, or dispatch sent one.
fn close_frame(record: &CloseRecord) -> bool {
    record.ws_from.is_some()
        || record.ws_code.is_some()
        || matches!(record.verdict, Verdict::ClientClosed | Verdict::ServeClosed | Verdict::DispatchShutdown)
}

/// What all statements add.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Statements {
    /// The statements about this session.
    pub found: Vec<Statement>,
    /// Each log in a sentence.
    pub reasons: Vec<String>,
    /// The hops that remain; none if no statement names one.
    hops: Option<u8>,
    /// A statement and the record exclude each other.
    pub contradiction: Option<String>,
    /// Envoy or HAProxy states that the session came from its client's side, or ended it.
    pub proxy_clear: bool,
    /// Envoy or HAProxy in place of Traefik.
    proxy: Option<Witness>,
}

impl Statements {
    pub(super) fn of<'a>(
        ended: &Ended<'_>,
        logs: impl Iterator<Item = (Witness, &'a Reading<Statement>)>,
    ) -> Self {
        let mut all = Self::default();
        for (witness, reading) in logs {
            all.proxy = all.proxy.or((witness != Witness::Cloudflare).then_some(witness));
            let log = format!("{}'s log", witness.name());
            let reason = match find(ended, &reading.lines) {
                Found::Nothing => format!("{log}: no line matches this session"),
                Found::Ambiguous(lines) => format!("{log}: {lines} lines match this session equally"),
                Found::One { statement, by_ray } => {
                    let by = if by_ray { "its ray" } else { "address, start and duration" };
                    format!("{log}: {} (found by {by}){}", said(statement), all.add(ended, statement))
                }
            };
            all.reasons.push(reason);
            all.reasons.extend(super::explanations::unread(&log, reading.unread, reading.cut));
        }
        all
    }

    /// Adds a statement; returns its limit as a clause.
    fn add(&mut self, ended: &Ended<'_>, statement: &Statement) -> String {
        self.found.push(statement.clone());
        match bearing(ended, statement) {
            Bearing::Hops(hops) => {
                self.hops = Some(self.hops.unwrap_or(ANY) & hops);
                self.proxy_clear |= statement.witness != Witness::Cloudflare && hops & PROXY == 0;
                String::new()
            }
            Bearing::Agrees => ", as this host observed".to_owned(),
            Bearing::Open(why) => format!(", {why}"),
            Bearing::Contradicts(ours) => {
                let by = match ended.record.kernel {
                    KernelSource::Kprobe | KernelSource::Tracepoint => "the kernel of this host",
                    KernelSource::Off | KernelSource::Timeout => "t3-dispatch",
                };
                let why = format!("{}, but {by} observed that {ours}", said(statement));
                self.contradiction.get_or_insert(why);
                ", which contradicts this host".to_owned()
            }
        }
    }

    /// Combines the statements with the outcome of the rules.
    pub(super) fn narrowed(&self, outcome: RuleOutcome) -> RuleOutcome {
        if self.contradiction.is_some() {
            return RuleOutcome::Cannot("the edge and this host contradict each other".to_owned());
        }
        let Some(hops) = self.hops else { return outcome };
        if hops == 0 {
            return RuleOutcome::Cannot("the statements of the edge exclude each other".to_owned());
        }
        let stated = || {
            let names = self.found.iter().map(|statement| statement.witness.name()).collect::<Vec<_>>();
            format!("as stated by {}", names.join(" and "))
        };
        match outcome {
            RuleOutcome::Part(part, why) if self.bits(part) & hops != 0 => RuleOutcome::Part(part, why),
            RuleOutcome::Part(part, why) => RuleOutcome::Cannot(format!(
                "other evidence points to {part} ({why}), but the edge states another hop"
            )),
            RuleOutcome::Cannot(_) => match self.part(hops) {
                Some(part) => RuleOutcome::Part(part, stated()),
                None => outcome,
            },
        }
    }

    const fn bits(&self, part: Part) -> u8 {
        match part {
            Part::LastMile => LAST_MILE,
            Part::Edge => EDGE,
            Part::Tunnel => TUNNEL,
            Part::Traefik | Part::Proxy => PROXY,
            Part::BehindEdge => TUNNEL | PROXY,
            Part::BeforeProxy => LAST_MILE | EDGE | TUNNEL,
        }
    }

    fn part(&self, hops: u8) -> Option<Part> {
        let proxy = if self.proxy.is_some() { Part::Proxy } else { Part::Traefik };
        [Part::LastMile, Part::Edge, Part::Tunnel, proxy, Part::BehindEdge, Part::BeforeProxy]
            .into_iter()
            .find(|part| self.bits(*part) == hops)
    }
}

/// A statement as a clause, with the values that decide.
fn said(statement: &Statement) -> String {
    let who = match (statement.witness, statement.closer) {
        (Witness::Cloudflare, Closer::Downstream) => "the browser or its network closed first",
        (Witness::Cloudflare, Closer::Upstream) => "the tunnel, or a hop behind it, closed first",
        (_, Closer::Downstream) => "its client's side closed first",
        (_, Closer::Upstream) => "the connection to t3-dispatch closed first",
        (_, Closer::Itself) => "it closed the session itself",
        (_, Closer::TimedOut) => "it closed the session after a time limit",
        (_, Closer::Both | Closer::Unstated) => "the session ended",
    };
    let values = if statement.values.is_empty() { String::new() } else { format!(": {}", statement.values) };
    format!("{} states that {who}{values}", statement.witness.name())
}

#[cfg(test)]
mod tests;
