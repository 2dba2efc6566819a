//! Timeline of all facts around a close. Pure: facts in, entries out.
//!
//! Times are relative to the first event on a leg, from which the record counts its ages and its
//! chain, too.

use t3_record::{
    CloseRecord, KernelSource, chain,
    edge::{Refinement, cloudflared::TunnelKind},
    value::Percent,
    verdict::pressure::limits,
    vocabulary::Reconciled,
};

use super::{
    changes,
    checked::at_least,
    facts::{Context, ExplainInput},
};
use crate::{
    layers::LayerData,
    present::{
        chain_text,
        text::{lasted, safe},
        units, verdict_text,
    },
};

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// Milliseconds after the close; before it when negative.
    pub offset_ms: i64,
    /// Source of the fact, one word.
    pub source: &'static str,
    pub text: String,
}

/// Up to this many closes of other sessions are listed, the nearest first.
const OTHERS: usize = 6;
/// Limit of lines per source.
const LINES: usize = 12;
/// A record written later than this after the close gets an entry, in milliseconds.
const LATE: i64 = 1_000;
/// PSI values from here on get an entry, in percent.
const NOTABLE: f32 = 1.0;
/// Time within which a reconnect names its previous session, in milliseconds.
const BACK_WITHIN: i64 = 60_000;

/// Returns the entries, earliest first; entries of the same time in causal order.
#[must_use]
pub fn entries(facts: &ExplainInput, edge: &Refinement) -> Vec<Entry> {
    let mut list = List { zero_ms: facts.zero_ms(), entries: Vec::new() };
    opening(&mut list, facts);
    restarts(&mut list, &facts.record);
    beats(&mut list, &facts.record);
    pressure(&mut list, &facts.record);
    events(&mut list, &facts.record);
    if let Some(around) = &facts.around {
        surroundings(&mut list, facts, around);
    }
    for (at_ms, source, text) in changes::changes(facts) {
        list.at(at_ms, source, text);
    }
    layers(&mut list, &facts.gathered, edge);
    if let Some(origin) = facts.record.reconciled {
        let text = match origin {
            Reconciled::Journal => "record written by t3-trace, from the ws open",
            Reconciled::Spool => "record written again by t3-trace: it had not arrived in the journal",
            Reconciled::Restart => "record written by t3-trace: no t3-dispatch continued the session",
        };
        list.at(facts.written_ms, "record", text.to_owned());
    } else if facts.at_ms.saturating_sub(list.zero_ms) >= LATE {
        list.at(facts.at_ms, "record", "record written, after both legs ended".to_owned());
    }
    returning(&mut list, facts);
    list.entries.sort_by_key(|entry| entry.offset_ms);
    list.entries
}

struct List {
    zero_ms: i64,
    entries: Vec<Entry>,
}

impl List {
    fn after(&mut self, offset_ms: i64, source: &'static str, text: String) {
        self.entries.push(Entry { offset_ms, source, text });
    }

    fn before(&mut self, age_ms: u64, source: &'static str, text: String) {
        self.after(-signed(age_ms), source, text);
    }

    /// At a time in milliseconds since the epoch.
    fn at(&mut self, at_ms: i64, source: &'static str, text: String) {
        self.after(at_ms.saturating_sub(self.zero_ms), source, text);
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn opening(list: &mut List, facts: &ExplainInput) {
    let record = &facts.record;
    // The last restart has an entry only if its time is known.
    let continued =
        record.resumed.filter(|_| record.resumed_ms.is_none()).map_or_else(String::new, |times| {
            format!("; continued over {} of dispatch", units::count(u64::from(times), "restart"))
        });
    match &facts.open {
        Some(open) => {
            let after = match (&open.what.prev, open.what.gap_ms) {
                (Some(prev), Some(gap)) => {
                    format!(", {} after session {} closed", lasted(gap), safe(prev))
                }
                _ => String::new(),
            };
            let text = format!("session opened, from {}{after}{continued}", safe(&record.ip));
            list.at(open.at_ms, "ws open", text);
        }
        // Computed from the duration when the open record is missing.
        None if record.dur_ms > 0 => {
            let text = format!("session opened, from {}{continued}", safe(&record.ip));
            list.before(record.dur_ms, "record", text);
        }
        None => {}
    }
}

/// The last restart of dispatch that the session survived.
fn restarts(list: &mut List, record: &CloseRecord) {
    let Some((age, times)) = record.resumed_ms.zip(record.resumed) else { return };
    let all = if times > 1 { format!("; restart {times} since it opened") } else { String::new() };
    list.before(age, "dispatch", format!("dispatch restarted: the session continued{all}"));
}

fn beats(list: &mut List, record: &CloseRecord) {
    if let (Some(wait), true) = (record.hb_wait_ms, record.hb_wait_ms != record.hb_gap_ms) {
        list.before(wait, "heartbeat", "a ping reached serve and was never answered".to_owned());
    }
    if let Some(gap) = record.hb_gap_ms {
        let all = record.hb_n.map_or_else(String::new, |n| format!(" of {n}"));
        let every =
            record.hb_period_ms.map_or_else(String::new, |period| format!(", one every {}", lasted(period)));
        let answered = match record.hb_wait_ms {
            None => "; all were answered",
            Some(wait) if wait == gap => "; it was not answered",
            Some(_) => "",
        };
        list.before(gap, "heartbeat", format!("last ping{all} from the client{every}{answered}"));
    }
    match (record.up_idle_ms, record.down_idle_ms) {
        (Some(up), Some(down)) if up == down => {
            list.before(up, "relay", "last byte from serve and from the client".to_owned());
        }
        (up, down) => {
            for (idle, whose) in [(up, "serve"), (down, "the client")] {
                idle.into_iter()
                    .for_each(|idle| list.before(idle, "relay", format!("last byte from {whose}")));
            }
        }
    }
}

fn pressure(list: &mut List, record: &CloseRecord) {
    let cgroup = [record.psi_mem, record.psi_io, record.psi_cpu];
    let host = [record.host_psi_mem, record.host_psi_io, record.host_psi_cpu];
    // On a whole host some task always waits a little.
    for (whose, shares, from) in [("serve's cgroup", cgroup, [NOTABLE; 3]), ("the host", host, limits())] {
        if at_least(shares, from) {
            let shares = units::shares(shares);
            list.before(10_000, "pressure", format!("PSI some of {whose}, 10 s before the close: {shares}"));
        }
    }
    let peaks = [record.psi_mem_peak, record.psi_io_peak, record.psi_cpu_peak];
    let worse = |(peak, ten): (&Option<Percent>, &Option<Percent>)| {
        peak.is_some_and(|peak| peak.0 >= NOTABLE && ten.is_none_or(|ten| peak.0 > ten.0))
    };
    if peaks.iter().zip(&cgroup).any(worse) {
        let text = format!(
            "PSI some of serve's cgroup, worst second of 30 s before the close: {}",
            units::shares(peaks)
        );
        list.before(30_000, "pressure", text);
    }
}

fn events(list: &mut List, record: &CloseRecord) {
    for event in record.chain.iter().flat_map(|chain| &chain.0) {
        let (source, text) = event_text(record, event);
        list.after(event.at_ms, source, text);
    }
}

/// Returns source and text of a chain event.
fn event_text(record: &CloseRecord, event: &chain::Event) -> (&'static str, String) {
    let text = chain_text::sentence(event);
    if event.what.starts_with("close") {
        return ("frame", text);
    }
    if !event.what.starts_with("peer_") {
        let unseen = matches!(record.kernel, KernelSource::Off | KernelSource::Timeout);
        return (if unseen { "relay" } else { "kernel" }, text);
    }
    let process = units::process(record).map_or_else(String::new, |process| format!(" ({process})"));
    let more = match (&record.killed_by, &record.oom_victim) {
        (Some(by), _) if event.what.starts_with("peer_sig") => format!(", sent by {}", safe(by)),
        (_, Some(argv)) if event.what == "peer_oom" => format!(": {}", safe(argv)),
        _ => String::new(),
    };
    ("process", format!("{text}{process}{more}"))
}

fn surroundings(list: &mut List, facts: &ExplainInput, around: &Context) {
    let mut others: Vec<_> = around.closes.iter().collect();
    let ours = |user: &str| user == facts.record.user;
    others.sort_by_key(|close| (!ours(&close.what.user), close.at_ms.abs_diff(facts.at_ms)));
    for close in others.iter().take(OTHERS) {
        let CloseRecord { verdict, user, conn, .. } = &close.what;
        let text = format!(
            "{}'s session {} closed: {} ({verdict})",
            safe(user),
            safe(conn),
            verdict_text::close_label(&close.what)
        );
        list.at(close.at_ms, "ws close", text);
    }
    let last = others.iter().take(OTHERS).map(|close| close.at_ms).max();
    if let Some(last) = last.filter(|_| others.len() > OTHERS) {
        let more = units::count((others.len() - OTHERS) as u64, "more session");
        list.at(last, "ws close", format!("and {more} closed around this time"));
    }
    for burst in &around.bursts {
        let (n, users) = (units::count(burst.what.n, "session"), units::count(burst.what.users, "user"));
        list.at(burst.at_ms, "ws burst", format!("{n} of {users} closed within one second"));
    }
    for disconnect in around.disconnects.iter().take(LINES) {
        let text = format!(
            "probe leg {} disconnected: {} in {}",
            safe(&disconnect.leg),
            disconnect.reason,
            disconnect.phase
        );
        list.at(signed(disconnect.at_ms), "probe", text);
    }
    for line in around.units.iter().take(LINES) {
        list.at(line.at_ms, "systemd", safe(&line.what));
    }
}

fn layers(list: &mut List, gathered: &LayerData, edge: &Refinement) {
    for statement in &edge.statements {
        let text = format!("session ended: {}", safe(&statement.values));
        list.at(statement.end_ms, statement.witness.as_str(), text);
    }
    if let Some(line) = &edge.line {
        let status = line.status.map_or("none".to_owned(), |status| status.to_string());
        list.at(line.start_ms, "traefik", format!("{} {} began", safe(&line.method), safe(&line.path)));
        list.at(line.end_ms(), "traefik", format!("request ended, status {status}"));
    }
    let lines = gathered.layers.cloudflared.iter().flat_map(|read| &read.lines);
    let is_event = |kind: &TunnelKind| !matches!(kind, TunnelKind::Other);
    for line in lines.filter(|line| is_event(&line.kind)).take(LINES) {
        let error = line.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        list.at(line.at_ms, "tunnel", safe(&format!("{}{error}", line.message)));
    }
    for line in gathered.lines.iter().take(LINES) {
        list.at(line.at_ms, "loki", safe(&format!("{} {}", line.stream, line.text)));
    }
    for pressure in &gathered.pressure {
        let worst = pressure.points.iter().max_by(|one, other| one.1.total_cmp(&other.1));
        if let Some((at_ms, percent)) = worst.filter(|(_, percent)| *percent >= f64::from(NOTABLE)) {
            let (resource, host) = (pressure.resource, safe(&pressure.instance));
            list.at(*at_ms, "prometheus", format!("worst minute of {host}: PSI {resource} {percent:.0}%"));
        }
    }
}

fn returning(list: &mut List, facts: &ExplainInput) {
    if let Some(back) = &facts.back {
        let gap = back.what.gap_ms.map_or_else(String::new, |gap| format!(" after {}", lasted(gap)));
        list.at(back.at_ms, "ws open", format!("reconnected as session {}{gap}", safe(&back.what.conn)));
    } else if let Some(around) = &facts.around
        && around.until_ms >= list.zero_ms.saturating_add(BACK_WITHIN)
    {
        list.after(
            BACK_WITHIN,
            "ws open",
            format!("no new session of {} from {} by now", safe(&facts.record.user), safe(&facts.record.ip)),
        );
    }
}
