//! Reads the records of a replay from a store, and prints it without a screen.

use std::io::{self, Write};

use t3_record::{OpenRecord, journal::field};
use t3_trace_host::journal_trust::Trust;

use super::{
    args::LiveArgs,
    plain::{wanted, wanted_direct},
    replay::{AROUND, Collector, OpenDirect, Record, Replay},
};
use crate::{
    closes::entry,
    journal::{export_format::Entry, json_entry::Unusable},
    present::{
        close_line,
        text::{self, Paint, lasted, safe},
        units::count,
        via::{self, ViaFilter},
    },
    store::{self, Kind, Query, ReadError, Store, Want},
    time::{Moment, closed::closed_micros, local},
};

/// Time before the moment whose closes are printed without a screen, in seconds.
const PRINTED: u64 = 3_600;

/// Reads the records around a moment.
///
/// # Errors
/// The store cannot be read.
pub fn read(store: &dyn Store, trust: Trust, at: Moment, via: ViaFilter) -> Result<Replay, ReadError> {
    let mut records = Collector::new(at.secs);
    let moment = |secs| Some(Moment { secs, micros: 0, span: 1, upcoming: None });
    let mut kinds = Vec::new();
    if via.has_sessions() {
        kinds.extend([Kind::Close, Kind::Open]);
    }
    if via.has_direct() {
        kinds.push(Kind::TcpClose);
    }
    let mut query = Query {
        since: moment(at.secs.saturating_sub(AROUND)),
        until: moment(at.secs.saturating_add(AROUND)),
        wanted: vec![Want::Records { kinds, terms: Vec::new() }],
        ..Query::default()
    };
    let mut add = |entry: &Entry| {
        records.host(entry.host());
        add(&mut records, entry, trust);
        Ok::<_, std::convert::Infallible>(())
    };
    let (_, mut warnings) = store::read(store, &query, &mut add)?;
    if via.has_sessions() {
        // Reconciled records are written after the close, by days if the host was off.
        let terms = entry::reconciled().collect();
        query.wanted = vec![Want::Records { kinds: vec![Kind::Close], terms }];
        (query.until, query.often_empty) = (None, true);
        let (_, more) = store::read(store, &query, &mut add)?;
        warnings.merge(more);
    }
    warnings.print("sessions and closes may be missing");
    let name = if store.needs_start() { "Loki" } else { "the journal" };
    Ok(records.finish(name, !warnings.is_empty()))
}

fn add(records: &mut Collector, entry: &Entry, trust: Trust) {
    let micros = entry.micros().unwrap_or_default();
    match entry::kind(entry, trust) {
        Ok(Some(entry::EntryKind::Close { record, micros })) => {
            let at_ms = closed_micros(&record, micros) / 1000;
            records.close(record, at_ms);
        }
        Ok(Some(entry::EntryKind::Direct { record, micros })) => records.direct(record, micros / 1000),
        Err(Unusable::Foreign { .. } | Unusable::Broken(_)) => {}
        Ok(_) if entry.get("MESSAGE_ID") == Some(Kind::Open.id()) => {
            if let Ok(open) = OpenRecord::from_pairs(|key| entry.get(&field(key)).map(Into::into)) {
                records.open(open, micros / 1000);
            }
        }
        Ok(_) => {}
    }
}

/// Prints the open sessions, then the closes of the hour before.
///
/// # Errors
/// Writing fails.
pub fn print(
    args: &LiveArgs,
    replay: &Replay,
    out: &mut dyn Write,
    paint: Paint,
    width: Option<usize>,
) -> io::Result<()> {
    let mut line = |text: &str| writeln!(out, "{}", text::folded(text, width));
    for limit in replay.limits() {
        line(&limit)?;
    }
    let of_user = |user: &str| args.user.as_ref().is_none_or(|wanted| wanted == user);
    let open: Vec<_> = replay.open.iter().filter(|open| of_user(&open.user)).collect();
    let at = format!("{} {}", local::day(replay.at), local::clock(replay.at));
    if args.via.has_sessions() {
        line(&format!("{at}: {}", count(open.len() as u64, "open session")))?;
    }
    if !open.is_empty() {
        line(&paint.dim(&format!("{:13}  {:11}  {:15}  {:>8}", "CONN", "USER", "ADDRESS", "OPEN FOR")))?;
    }
    for open in open {
        let (conn, user, ip) = (safe(&open.conn), safe(&open.user), safe(&open.ip));
        line(&format!("{conn:13}  {user:11}  {ip:15}  {:>8}", lasted(open.age_ms)))?;
    }
    if args.via.has_direct() {
        let open = replay.open_direct.iter().filter(|open| wanted_direct(args, &open.record));
        let open: Vec<_> = open.collect();
        line(&format!("{at}: {} that closed later", count(open.len() as u64, "open direct connection")))?;
        for OpenDirect { record, age_ms } in open {
            let (conn, owner) = (safe(&record.conn), safe(&record.owner()));
            line(&format!("{conn:13}  {owner:11}  {:>8}  {}", lasted(*age_ms), via::ends(record)))?;
        }
    }
    let from_ms = replay.at.saturating_sub(PRINTED).saturating_mul(1000);
    let is_wanted = |record: &Record| match record {
        Record::Session(record) => wanted(args, record),
        Record::Direct(record) => wanted_direct(args, record),
    };
    let closes: Vec<_> =
        replay.closes.iter().filter(|close| close.at_ms >= from_ms && is_wanted(&close.record)).collect();
    line(&format!("{} in the hour before", count(closes.len() as u64, "close")))?;
    if !closes.is_empty() {
        line(&close_line::heading(false, paint))?;
    }
    for close in closes {
        let clock = local::clock(close.at_ms / 1000);
        line(&match &close.record {
            Record::Session(record) => close_line::close(record, &clock, None, paint),
            Record::Direct(record) => via::direct_line(record, &clock, None, paint),
        })?;
    }
    out.flush()
}
