//! Reads a close and its context from the journal, or from Loki. Accepts only entries of trusted
//! writers.

use std::{cell::RefCell, ops::ControlFlow};

use t3_record::{
    BurstRecord, CloseRecord, OpenRecord, TcpCloseRecord,
    journal::{BURST_ID, CLOSE_ID, field},
    probe::Disconnect,
};
use t3_trace_host::journal_trust::Trust;

use super::{
    args::ExplainArgs,
    changes::oom,
    facts::{Context, ExplainInput, Timed},
    find::{self, Close, Selector},
};
use crate::{
    closes::entry,
    journal::{export_format::Entry, warnings::Warnings},
    store::{Kind, Query, ReadError, Store, Term, Want},
    time::{Moment, closed::closed_micros},
};

/// Range around a close that is read, in milliseconds: other closes before it, the reconnect after
/// it.
const BEFORE: i64 = 60_000;
const AFTER: i64 = 75_000;
/// Range before a close in which a pattern over the user's sessions is searched, in milliseconds.
const HISTORY: i64 = 30 * 60_000;
/// Range around a session in which its `ws open` and the reconnect are searched in a store without
/// an index, in seconds.
const OPEN_BEFORE: u64 = 3_600;
const BACK_AFTER: u64 = 86_400;
/// Message IDs of systemd: shutdown of the host (logind), end of its start
/// (`/usr/lib/systemd/catalog/systemd.catalog`).
const SHUTDOWN_ID: &str = "98268866d1d54a499c4e98921d93bc40";
const STARTED_ID: &str = "b07a249cd024414a82dd00cd181378ff";
/// Limit of closes kept around one.
const KEPT: usize = 10_000;
/// Unit of the probe, if it runs on this host.
const PROBE_UNIT: &str = "t3-probe.service";

/// Candidates for a selection.
#[derive(Debug, Default)]
pub struct Candidates {
    pub closes: Vec<Close>,
    /// Matching records from other writers, ignored.
    pub foreign: u64,
    /// Matching records that cannot be parsed.
    pub broken: u64,
}

/// A connection that t3-dispatch did not carry.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundDirect {
    pub record: TcpCloseRecord,
    /// Write time in microseconds since the epoch.
    pub micros: u64,
    /// Host of the entry, in a store of several hosts.
    pub host: Option<String>,
}

/// A journal and its trusted writers.
pub struct Journal<'a> {
    args: &'a ExplainArgs,
    store: &'a dyn Store,
    trust: Trust,
    /// Warnings of all queries.
    warnings: RefCell<Warnings>,
}

impl<'a> Journal<'a> {
    #[must_use]
    pub fn new(args: &'a ExplainArgs, store: &'a dyn Store, trust: Trust) -> Self {
        Self { args, store, trust, warnings: RefCell::default() }
    }

    /// Returns the warnings of the queries so far.
    #[must_use]
    pub fn warnings(&self) -> Warnings {
        self.warnings.borrow().clone()
    }

    /// Returns all candidates for a selection.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn find(&self, selector: &Selector) -> Result<Candidates, ReadError> {
        let mut query = self.range(selector);
        let mut terms = Vec::new();
        match selector {
            Selector::Conn(conn) => {
                // One session has one record; the last that t3-dispatch wrote is the best.
                query.reverse = true;
                terms.push(Term::new("conn", conn));
            }
            Selector::Nearby { user, .. } => terms.push(Term::new("user", user)),
            Selector::Last { user } => {
                query.reverse = true;
                terms.extend(user.iter().map(|user| Term::new("user", user)));
            }
        }
        query.wanted = vec![Want::Records { kinds: vec![Kind::Close], terms: terms.clone() }];
        let mut found = Candidates::default();
        self.read(&query, |entry| {
            match entry::record(entry) {
                _ if !self.trusts(entry) => found.foreign += 1,
                Ok(record) => found.closes.push(close(record, entry)),
                Err(_) => found.broken += 1,
            }
            // A close before a reconciled one may be later than it.
            let last = found.closes.last().is_some_and(|close| close.record.reconciled.is_none());
            if query.reverse && last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Selector::Nearby { .. } = selector {
            // Their entries are later than the closes; those outside the range are not selected.
            found.closes.retain(|close| close.record.reconciled.is_none());
            terms.extend(entry::reconciled());
            let wanted = vec![Want::Records { kinds: vec![Kind::Close], terms }];
            let query = Query { until: None, often_empty: true, wanted, ..query };
            self.read(&query, |entry| {
                if let (true, Ok(record)) = (self.trusts(entry), entry::record(entry)) {
                    found.closes.push(close(record, entry));
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(found)
    }

    /// Returns the range in which a selection is searched.
    fn range(&self, selector: &Selector) -> Query {
        let mut query = self.query();
        if let Selector::Nearby { at, .. } = selector {
            query.since = Some(self.not_before(moment(at.secs.saturating_sub(find::NEAR))));
            query.until = Some(moment(at.secs.saturating_add(at.span).saturating_add(find::NEAR)));
        }
        query
    }

    /// Returns a warning for each host of the store whose journal does not arrive: a close there
    /// may be the one that was meant.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn silent(&self, selector: &Selector) -> Result<Warnings, ReadError> {
        let query = self.range(selector);
        Ok(self.store.survey(&query)?.warnings(query.until))
    }

    /// Returns the last record of a connection that t3-dispatch did not carry.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn find_direct(&self, conn: &str) -> Result<Option<FoundDirect>, ReadError> {
        let wanted =
            vec![Want::Records { kinds: vec![Kind::TcpClose], terms: vec![Term::new("conn", conn)] }];
        let query = Query { wanted, reverse: true, ..self.query() };
        let mut found = None;
        self.read(&query, |entry| {
            let record = TcpCloseRecord::from_pairs(|key| entry.get(&field(key)).map(Into::into));
            match record {
                Ok(record) if self.trusts(entry) => {
                    let host = entry.host().map(str::to_owned);
                    found = Some(FoundDirect { record, micros: entry.micros().unwrap_or_default(), host });
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        })?;
        Ok(found)
    }

    /// Calls `each` for every entry until it breaks.
    fn read(&self, query: &Query, mut each: impl FnMut(&Entry) -> ControlFlow<()>) -> Result<(), ReadError> {
        let warnings = self.store.entries(query, &mut each)?;
        self.warnings.borrow_mut().merge(warnings);
        Ok(())
    }

    /// Reads the context of a close.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn around(&self, close: Close, now_ms: i64) -> Result<ExplainInput, ReadError> {
        let mut facts = ExplainInput::of(close.record, close.at_ms);
        facts.written_ms = close.written_ms;
        facts.host = close.host;
        self.opens(&mut facts)?;
        let zero = facts.zero_ms();
        let mut around = Context {
            from_ms: zero.saturating_sub(BEFORE),
            until_ms: zero.saturating_add(AFTER).max(facts.at_ms).min(now_ms.max(facts.at_ms)),
            ..Context::default()
        };
        let mut query = self.query();
        let secs = |ms: i64| u64::try_from(ms.div_euclid(1000)).unwrap_or(0);
        query.since = Some(self.not_before(moment(secs(around.from_ms))));
        query.until = Some(moment(secs(around.until_ms) + 1));
        query.host.clone_from(&facts.host);
        let units =
            [format!("t3-serve@{}", facts.record.user), "t3-dispatch".to_owned(), "t3-trace".to_owned()];
        query.wanted = vec![
            Want::Records { kinds: vec![Kind::Close, Kind::Burst], terms: Vec::new() },
            Want::Unit(PROBE_UNIT),
            Want::Systemd(units.map(|unit| format!("{unit}.service")).to_vec()),
            Want::Kernel,
            Want::Root(&[SHUTDOWN_ID, STARTED_ID]),
        ];
        self.read(&query, |entry| {
            self.add(&mut around, &facts.record, entry);
            ControlFlow::Continue(())
        })?;
        let until = query.until;
        self.reconciled(&mut around, &facts.record, Query { until: None, often_empty: true, ..query })?;
        let since = moment(secs(zero.saturating_sub(HISTORY)));
        facts.history = self.history(&facts.record, since, until, facts.host.clone())?;
        facts.around = Some(around);
        Ok(facts)
    }

    /// Reads the closes of the user in a range, without the reconciled ones, which t3-trace wrote.
    fn history(
        &self,
        ours: &CloseRecord,
        since: Moment,
        until: Option<Moment>,
        host: Option<String>,
    ) -> Result<Vec<Timed<CloseRecord>>, ReadError> {
        let since = Some(self.not_before(since));
        let terms = vec![Term::new("user", &ours.user)];
        let wanted = vec![Want::Records { kinds: vec![Kind::Close], terms }];
        let query = Query { since, until, wanted, host, often_empty: true, ..self.query() };
        let mut closes = Vec::new();
        self.read(&query, |entry| {
            if let (true, Ok(what)) = (self.trusts(entry), entry::record(entry))
                && what.conn != ours.conn
                && what.reconciled.is_none()
            {
                closes.push(Timed { at_ms: at_ms(entry), what });
            }
            if closes.len() < KEPT { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(closes)
    }

    /// Reads the reconciled records of closes in the range, whose entries are later.
    fn reconciled(
        &self,
        around: &mut Context,
        ours: &CloseRecord,
        mut query: Query,
    ) -> Result<(), ReadError> {
        let terms = entry::reconciled().collect();
        query.wanted = vec![Want::Records { kinds: vec![Kind::Close], terms }];
        self.read(&query, |entry| {
            if let (true, Ok(record)) = (self.trusts(entry), entry::record(entry)) {
                let close = close(record, entry);
                let inside = (around.from_ms..=around.until_ms).contains(&close.at_ms);
                if inside && close.record.conn != ours.conn && around.closes.len() < KEPT {
                    around.closes.push(Timed { at_ms: close.at_ms, what: close.record });
                }
            }
            ControlFlow::Continue(())
        })
    }

    /// Reads the session's `ws open`, however old, and that of the reconnect.
    fn opens(&self, facts: &mut ExplainInput) -> Result<(), ReadError> {
        let conn = &facts.record.conn;
        let open = |key| Want::Records { kinds: vec![Kind::Open], terms: vec![Term::new(key, conn)] };
        let wanted = vec![open("conn"), open("prev")];
        let mut query = Query { since: None, wanted, often_empty: true, ..self.query() };
        query.host.clone_from(&facts.host);
        if self.store.needs_start() {
            let lasted = facts.record.dur_ms / 1000;
            let closed = u64::try_from(facts.at_ms / 1000).unwrap_or(0);
            query.since = Some(moment(closed.saturating_sub(lasted).saturating_sub(OPEN_BEFORE)));
            query.until = Some(moment(closed.saturating_add(BACK_AFTER)));
        }
        let mut opens: Vec<Timed<OpenRecord>> = Vec::new();
        self.read(&query, |entry| {
            if self.trusts(entry)
                && let Ok(what) = OpenRecord::from_pairs(|key| entry.get(&field(key)).map(Into::into))
            {
                opens.push(Timed { at_ms: at_ms(entry), what });
            }
            ControlFlow::Continue(())
        })?;
        facts.back = opens.iter().find(|open| open.what.prev.as_ref() == Some(conn)).cloned();
        facts.open = opens.into_iter().find(|open| open.what.conn == *conn);
        Ok(())
    }

    fn add(&self, around: &mut Context, ours: &CloseRecord, entry: &Entry) {
        let at_ms = at_ms(entry);
        match entry.get("MESSAGE_ID") {
            Some(CLOSE_ID | BURST_ID) if !self.trusts(entry) => around.foreign += 1,
            Some(CLOSE_ID) => match entry::record(entry) {
                Ok(what) if what.conn == ours.conn || what.reconciled.is_some() => {}
                Ok(what) if around.closes.len() < KEPT => around.closes.push(Timed { at_ms, what }),
                Ok(_) => {}
                Err(_) => around.broken += 1,
            },
            Some(BURST_ID) => match BurstRecord::from_pairs(|key| entry.get(&field(key)).map(Into::into)) {
                Ok(what) => around.bursts.push(Timed { at_ms, what }),
                Err(_) => around.broken += 1,
            },
            _ if entry.get("_SYSTEMD_UNIT") == Some(PROBE_UNIT) => {
                around.disconnects.extend(entry.get("MESSAGE").and_then(Disconnect::from_line));
            }
            _ if entry.get("_TRANSPORT") == Some("kernel") => {
                let part = entry.get("MESSAGE").filter(|line| oom::is_part(line));
                let part = part.filter(|_| around.kernel.len() < KEPT);
                around.kernel.extend(part.map(|line| Timed { at_ms, what: line.to_owned() }));
            }
            Some(SHUTDOWN_ID | STARTED_ID) if entry.get("_UID") == Some("0") => {
                let what = entry.get("MESSAGE").map(str::to_owned);
                around.host.extend(what.map(|what| Timed { at_ms, what }));
            }
            _ if entry.get("_PID") == Some("1") && entry.get("_UID") == Some("0") => {
                let what = entry.get("MESSAGE").map(str::to_owned);
                around.units.extend(what.map(|what| Timed { at_ms, what }));
            }
            _ => {}
        }
    }

    fn trusts(&self, entry: &Entry) -> bool {
        self.trust.allows_writer(entry.get("_UID"), entry.get("_SYSTEMD_UNIT"))
    }

    /// `--since` limits every query except that for the `ws open`.
    fn not_before(&self, moment: Moment) -> Moment {
        self.args.since.filter(|since| since.secs >= moment.secs).unwrap_or(moment)
    }

    /// Returns a query without conditions.
    fn query(&self) -> Query {
        Query { since: self.args.since, ..Query::default() }
    }
}

fn moment(secs: u64) -> Moment {
    Moment { secs, micros: 0, span: 1, upcoming: None }
}

fn close(record: CloseRecord, entry: &Entry) -> Close {
    let written = entry.micros().unwrap_or_default();
    let ms = |micros: u64| i64::try_from(micros / 1000).unwrap_or(i64::MAX);
    let host = entry.host().map(str::to_owned);
    Close { at_ms: ms(closed_micros(&record, written)), written_ms: ms(written), record, host }
}

fn at_ms(entry: &Entry) -> i64 {
    i64::try_from(entry.micros().unwrap_or_default() / 1000).unwrap_or(i64::MAX)
}
