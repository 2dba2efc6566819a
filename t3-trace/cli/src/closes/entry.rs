//! Journal entries for `closes`: a `ws close`, or the gap of a `ws open`; and the query for them.
//! Accepts only entries whose writer [`Trust`] allows. Pure.

use std::{collections::HashMap, sync::LazyLock};

use t3_record::{
    AttemptsRecord, CloseRecord, TcpCloseRecord,
    journal::{ATTEMPTS_ID, CLOSE_ID, OPEN_ID, TCP_CLOSE_ID, field},
    record::BadRecord,
    vocabulary::Reconciled,
};
use t3_trace_host::journal_trust::Trust;

use super::args::ClosesArgs;
use crate::{
    journal::{export_format::Entry, json_entry::Unusable},
    store::{Kind, Query, Term, Want},
};

/// Content of an entry.
#[derive(Debug, Clone, PartialEq)]
pub enum EntryKind {
    Close {
        record: Box<CloseRecord>,
        /// Write time in microseconds since the epoch.
        micros: u64,
    },
    /// A connection closed that t3-dispatch did not carry.
    Direct {
        record: Box<TcpCloseRecord>,
        /// Write time in microseconds since the epoch.
        micros: u64,
    },
    /// A user reconnected.
    Back {
        user: String,
        /// Time since the previous session of the user, in milliseconds.
        gap_ms: u64,
    },
    /// Connections that ended before a request was read.
    Attempts(AttemptsRecord),
}

/// Returns the content of an entry; `None` if `closes` does not use it.
///
/// # Errors
/// [`Unusable`]: the record is not valid, or another user wrote it.
pub fn kind(entry: &Entry, trust: Trust) -> Result<Option<EntryKind>, Unusable> {
    let id = entry.get("MESSAGE_ID").unwrap_or_default();
    if ![CLOSE_ID, OPEN_ID, ATTEMPTS_ID, TCP_CLOSE_ID].contains(&id) {
        return Ok(None);
    }
    let uid = entry.get("_UID");
    if !trust.allows_writer(uid, entry.get("_SYSTEMD_UNIT")) {
        return Err(Unusable::Foreign { uid: crate::present::text::safe(uid.unwrap_or("unknown")) });
    }
    if id == OPEN_ID {
        let gap = entry.get("T3_GAP_MS").and_then(|gap| gap.parse().ok());
        let back = entry.get("T3_USER").zip(gap);
        return Ok(back.map(|(user, gap_ms)| EntryKind::Back { user: user.to_owned(), gap_ms }));
    }
    if id == ATTEMPTS_ID {
        let attempts = AttemptsRecord::from_pairs(|key| entry.get(&field(key)).map(Into::into))?;
        return Ok(Some(EntryKind::Attempts(attempts)));
    }
    let micros = entry.micros().unwrap_or_default();
    if id == TCP_CLOSE_ID {
        let record = TcpCloseRecord::from_pairs(|key| entry.get(&field(key)).map(Into::into))?;
        return Ok(Some(EntryKind::Direct { record: Box::new(record), micros }));
    }
    Ok(Some(EntryKind::Close { record: Box::new(record(entry)?), micros }))
}

/// Index of each journal field in the keys of a record.
static PLACES: LazyLock<HashMap<String, usize>> = LazyLock::new(|| {
    CloseRecord::KEYS.iter().enumerate().map(|(place, key)| (field(key.name), place)).collect()
});

/// Parses the `ws close` of an entry, with one pass over the entry and one over the keys: `closes`
/// may read a million records.
///
/// # Errors
/// A mandatory key is missing, or a value is not valid.
pub fn record(entry: &Entry) -> Result<CloseRecord, BadRecord> {
    let mut values = [None; CloseRecord::KEYS.len()];
    for (name, value) in entry.fields() {
        if let Some(place) = PLACES.get(name) {
            values[*place].get_or_insert(value);
        }
    }
    // Keys are requested in the order of the line.
    let mut next = 0;
    CloseRecord::from_pairs(|key| {
        let keys = CloseRecord::KEYS;
        let place =
            if keys.get(next)?.name == key { next } else { keys.iter().position(|k| k.name == key)? };
        next = place + 1;
        values[place].map(Into::into)
    })
}

/// Returns the query for these options; the store skips entries that do not match.
#[must_use]
pub fn query(args: &ClosesArgs) -> Query {
    let mut kinds = Vec::new();
    kinds.extend(args.via.has_sessions().then_some(Kind::Close));
    kinds.extend(args.via.has_direct().then_some(Kind::TcpClose));
    let mut wanted = vec![Want::Records { kinds, terms: closes(args) }];
    if args.summarises() && args.via.has_sessions() {
        let terms = args.user.iter().map(|user| Term::new("user", user)).collect();
        wanted.push(Want::Records { kinds: vec![Kind::Open], terms });
    }
    if args.counts_attempts() {
        wanted.push(Want::all(Kind::Attempts));
    }
    Query { since: args.since, until: args.until(), wanted, ..Query::default() }
}

/// Returns the query for reconciled records: without an end, because they are written after the
/// close.
#[must_use]
pub fn reconciled_query(args: &ClosesArgs) -> Query {
    let mut terms = closes(args);
    terms.extend(reconciled());
    let wanted = vec![Want::Records { kinds: vec![Kind::Close], terms }];
    Query { since: args.since, wanted, often_empty: true, ..Query::default() }
}

/// Terms that select reconciled records.
pub fn reconciled() -> impl Iterator<Item = Term> {
    Reconciled::ALL.iter().map(|origin| Term::new("reconciled", origin.as_str()))
}

/// Terms of the closes for these options. Closes are selected by kind, not by unit: t3-trace writes
/// some itself.
fn closes(args: &ClosesArgs) -> Vec<Term> {
    let mut terms: Vec<Term> = args.user.iter().map(|user| Term::new("user", user)).collect();
    terms.extend(args.verdict.iter().map(|verdict| Term::new("verdict", verdict.as_str())));
    terms.extend(args.segment.iter().map(|segment| Term::new("segment", segment.as_str())));
    terms
}

#[cfg(test)]
mod tests {
    use t3_record::{Segment, Verdict};

    use super::*;
    use crate::journal::export_format::Entries;

    const TRUST: Trust = Trust { dispatch: Some(991) };

    /// Content of an entry with the fields of a full record, after a change.
    fn of(change: impl Fn(&mut Vec<(String, String)>)) -> Result<Option<EntryKind>, Unusable> {
        let fields = full().to_fields();
        let mut fields: Vec<(String, String)> =
            fields.into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
        fields.push(("__REALTIME_TIMESTAMP".to_owned(), "1700000042123456".to_owned()));
        fields.push(("_UID".to_owned(), "991".to_owned()));
        change(&mut fields);
        let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut bytes = t3_record::journal::datagram(fields);
        bytes.push(b'\n');
        let mut entries = Entries::new(&bytes[..]);
        kind(entries.read().unwrap().unwrap(), TRUST)
    }

    /// A record with every key.
    fn full() -> CloseRecord {
        let example = |key: &str| CloseRecord::KEYS.iter().find(|k| k.name == key).map(|k| k.example.into());
        let mut record = CloseRecord::from_pairs(example).unwrap();
        record.ws_reason = Some("so\nlong".to_owned());
        record
    }

    #[test]
    fn a_record_with_every_key_is_read_back_in_any_order() {
        let complete = Some(EntryKind::Close { record: Box::new(full()), micros: 1_700_000_042_123_456 });
        assert_eq!(of(|_| ()).unwrap(), complete);
        assert_eq!(of(|fields| fields.reverse()).unwrap(), complete);
    }

    #[test]
    fn other_entries_are_skipped_and_broken_or_foreign_records_are_errors() {
        let without =
            |name: &'static str| move |fields: &mut Vec<(String, String)>| fields.retain(|f| f.0 != name);
        assert_eq!(of(without("MESSAGE_ID")), Ok(None));
        assert_eq!(of(without("T3_CONN")), Err(BadRecord::Missing("conn").into()));
        assert_eq!(of(without("_UID")), Err(Unusable::Foreign { uid: "unknown".to_owned() }));
        let by = |uid: &'static str, unit: &'static str| {
            of(|fields| {
                fields.retain(|field| field.0 != "_UID");
                fields.push(("_UID".to_owned(), uid.to_owned()));
                fields.push(("_SYSTEMD_UNIT".to_owned(), unit.to_owned()));
            })
        };
        assert!(by("7", "t3-dispatch.service").unwrap().is_some());
        assert_eq!(by("1\u{1b}[2J", "x.scope"), Err(Unusable::Foreign { uid: "1\u{fffd}[2J".to_owned() }));
    }

    #[test]
    fn an_open_with_a_gap_is_a_reconnect() {
        let open = |gap: Option<&'static str>| {
            of(|fields| {
                fields.retain(|field| field.0 != "MESSAGE_ID");
                fields.push(("MESSAGE_ID".to_owned(), OPEN_ID.to_owned()));
                fields.extend(gap.map(|gap| ("T3_GAP_MS".to_owned(), gap.to_owned())));
            })
        };
        assert_eq!(open(None), Ok(None));
        assert_eq!(open(Some("soon")), Ok(None));
        assert_eq!(open(Some("40")), Ok(Some(EntryKind::Back { user: "wizard".to_owned(), gap_ms: 40 })));
    }

    fn matches(query: &Query) -> Vec<String> {
        crate::store::wanted::terms(&query.wanted)
    }

    #[test]
    fn the_query_uses_the_index_of_the_journal() {
        let all = ClosesArgs { no_summary: true, ..ClosesArgs::default() };
        assert_eq!(matches(&query(&all)), [format!("MESSAGE_ID={CLOSE_ID}")]);
        let some = ClosesArgs {
            user: Some("+".to_owned()),
            verdict: vec![Verdict::ServeOom, Verdict::ServeKilled],
            segment: vec![Segment::Serve],
            ..ClosesArgs::default()
        };
        let expected = [
            &format!("MESSAGE_ID={CLOSE_ID}"),
            "T3_USER=+",
            "T3_VERDICT=serve_oom",
            "T3_VERDICT=serve_killed",
            "T3_SEGMENT=serve",
            "+",
            &format!("MESSAGE_ID={OPEN_ID}"),
            "T3_USER=+",
        ];
        assert_eq!(matches(&query(&some)), expected);
        let expected =
            [&expected[..5], &["T3_RECONCILED=journal", "T3_RECONCILED=spool", "T3_RECONCILED=restart"]]
                .concat();
        assert_eq!(matches(&reconciled_query(&some)), expected);
        let attempts = format!("MESSAGE_ID={ATTEMPTS_ID}");
        assert!(matches(&query(&ClosesArgs::default())).contains(&attempts));
        assert!(!matches(&query(&some)).contains(&attempts));
    }
}
