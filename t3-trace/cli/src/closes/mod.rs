//! `t3-trace closes`: past closes from the journal or Loki as a table with a summary, as incidents,
//! as JSON or as CSV.

pub mod args;
pub mod changes;
pub mod csv;
mod direct;
mod direct_summary;
pub mod entry;
pub mod filter;
mod histogram;
pub mod incidents;
pub mod progress;
pub mod reconcile;
pub mod reconciled;
pub mod summary;
pub mod versions;

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::Context;
use t3_record::CloseRecord;
use t3_trace_host::journal_trust::{DISPATCH_USER, Trust};

use crate::{
    journal::{Completeness, access, export_format::Entry, json_entry::Unusable, warnings::Warnings},
    present::{
        close_line, json,
        text::{self, Paint},
        via::ViaFilter,
    },
    store::{self, ReadError, Store, StoreKind},
    time::{Moment, local},
};
use args::ClosesArgs;
use changes::{Change, Changes, dpkg};
use entry::EntryKind;
use incidents::Incidents;
use progress::Progress;
use reconciled::Reconciled;
use summary::Summary;
use versions::Versions;

/// Prints the closes until the end of the journal, or until the reader closes the output.
///
/// # Errors
/// The journal cannot be read to its end, or writing fails, except with EPIPE.
pub fn run(args: &ClosesArgs) -> anyhow::Result<Completeness> {
    if let (Some(since), Some(until)) = (args.since, args.until()) {
        anyhow::ensure!(
            since.epoch_micros() <= until.epoch_micros(),
            "the range ends before it starts: give --since and --until with their days"
        );
    }
    anyhow::ensure!(
        !args.csv || args.via != ViaFilter::All,
        "--csv has one kind of record: --via dispatch or --via direct"
    );
    if args.reconcile {
        anyhow::ensure!(
            args.store.from == StoreKind::Journal,
            "--reconcile is about this host: omit it, or --from loki"
        );
        reconcile::run(&args.socket)?;
    }
    let store = store::open(&args.store, &args.place, &args.server)?;
    if store.needs_start() && args.since.is_none() {
        let _ =
            writeln!(io::stderr(), "t3-trace closes: the last 30 days of Loki; --since for another range");
    }
    let stdout = io::stdout();
    let out = BufWriter::new(stdout.lock());
    let style = Style { paint: args.common.paint(args.plain), width: text::width() };
    list(args, &*store, Trust::in_user(DISPATCH_USER), out, style)
}

/// Form of the output.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub paint: Paint,
    /// Columns of the terminal, if lines are folded.
    pub width: Option<usize>,
}

/// Prints the closes of a store.
///
/// # Errors
/// The store cannot be read to its end, or writing fails, except with EPIPE.
pub fn list(
    args: &ClosesArgs,
    store: &dyn Store,
    trust: Trust,
    out: impl Write,
    Style { paint, width }: Style,
) -> anyhow::Result<Completeness> {
    let mut shown = ClosesPrinter::new(args, out, paint, width, trust);
    let written = shown.all(store).with_context(|| format!("cannot read {}", store.name()))?;
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(Completeness::of(&shown.warnings)),
    }
}

struct ClosesPrinter<'a, W> {
    out: W,
    args: &'a ClosesArgs,
    paint: Paint,
    /// Terminal width in columns; none where lines are not folded.
    width: Option<usize>,
    trust: Trust,
    day: String,
    broken: u64,
    /// Entries with our message IDs from other users.
    foreign: u64,
    /// Reconciled records that are not yet printed.
    reconciled: Reconciled,
    incidents: Incidents,
    versions: Versions,
    changes: Changes,
    warnings: Warnings,
    /// Each record has its host.
    shows_host: bool,
}

impl<'a, W: Write> ClosesPrinter<'a, W> {
    fn new(args: &'a ClosesArgs, out: W, paint: Paint, width: Option<usize>, trust: Trust) -> Self {
        Self {
            out,
            args,
            paint,
            width,
            trust,
            day: String::new(),
            broken: 0,
            foreign: 0,
            reconciled: Reconciled::default(),
            incidents: Incidents::default(),
            versions: Versions::default(),
            changes: Changes::default(),
            warnings: Warnings::default(),
            shows_host: false,
        }
    }

    fn all(&mut self, store: &dyn Store) -> Result<io::Result<()>, ReadError> {
        let mut summary = Summary::default();
        let query = entry::query(self.args);
        let survey = store.survey(&query)?;
        self.shows_host = survey.has_many();
        self.warnings.merge(survey.warnings(query.until));
        if let Err(error) = self.heading() {
            return Ok(Err(error));
        }
        let mut progress = Progress::new(query.until.map(Moment::epoch_micros), self.args.lists());
        let mut before = || {
            self.read_changes(store)?;
            if self.args.via.has_sessions() { self.read_reconciled(store, &mut summary) } else { Ok(()) }
        };
        let read = before().and_then(|()| {
            store::read(store, &query, |entry| {
                progress.step(|| entry.micros());
                self.entry(entry, &mut summary)
            })
        });
        progress.end();
        // Also when journalctl has failed for this reason: its error does not name the group.
        if store.is_here()
            && let Some(path) = access::closed()
        {
            let path = path.display();
            let _ = writeln!(
                io::stderr(),
                "t3-trace closes: cannot read {path}: permission denied, its records are missing; join the group systemd-journal"
            );
        }
        let (written, warnings) = read?;
        self.warnings.merge(warnings);
        self.warnings.print("closes may be missing");
        let written = written.and_then(|()| self.due(u64::MAX, &mut summary));
        let rest = self.changes.rest();
        if let Err(error) = written.and_then(|()| self.between(rest)) {
            return Ok(Err(error));
        }
        if self.broken > 0 {
            let _ = writeln!(io::stderr(), "t3-trace closes: {} records cannot be read", self.broken);
        }
        if self.foreign > 0 {
            let foreign = self.foreign;
            let _ = writeln!(
                io::stderr(),
                "t3-trace closes: ignored {foreign} records not written by t3-dispatch, t3-trace or root"
            );
        }
        Ok(self.foot(summary))
    }

    /// Keeps the reconciled records for the list. A summary has no order: it counts them at once,
    /// so that its memory does not grow with their number.
    fn read_reconciled(&mut self, store: &dyn Store, summary: &mut Summary) -> Result<(), ReadError> {
        let (args, trust) = (self.args, self.trust);
        let mut found = Reconciled::default();
        // Unusable entries are counted when they are read with all others.
        let incidents = &mut self.incidents;
        let read = store::read(store, &entry::reconciled_query(args), |entry| {
            if let Ok(Some(EntryKind::Close { record, micros })) = entry::kind(entry, trust) {
                match reconciled::closed_at(args, &record, micros) {
                    Some(at) if args.summary => summary.close(&record, at / 1_000_000),
                    Some(at) if args.incidents => incidents.close(&record, entry.host(), at / 1_000_000),
                    Some(at) => found.keep(at, record, entry.host()),
                    None => {}
                }
            }
            Ok::<(), std::convert::Infallible>(())
        })?;
        self.warnings.merge(read.1);
        found.sort();
        self.reconciled = found;
        Ok(())
    }

    /// Keeps the changes of the host for the table.
    fn read_changes(&mut self, store: &dyn Store) -> Result<(), ReadError> {
        let args = self.args;
        if !args.has_table() {
            return Ok(());
        }
        let found = &mut self.changes;
        let (_, warnings) = store::read(store, &changes::query(args), |entry| {
            if let Some((change, boot)) = changes::of_entry(args, entry) {
                found.keep(change, boot);
            }
            Ok::<(), std::convert::Infallible>(())
        })?;
        self.warnings.merge(warnings);
        // The log of dpkg does not know boots.
        if store.is_here() && args.place.boot.is_none() {
            match changes::packages(args, Path::new(dpkg::LOG)) {
                Ok(packages) => packages.into_iter().for_each(|change| found.keep(change, None)),
                Err(error) => {
                    let log = dpkg::LOG;
                    let _ = writeln!(
                        io::stderr(),
                        "t3-trace closes: cannot read {log}: {error}; package changes are not shown"
                    );
                }
            }
        }
        found.sort();
        Ok(())
    }

    fn heading(&mut self) -> io::Result<()> {
        if self.args.csv {
            let is_direct = self.args.via == ViaFilter::Direct;
            let heading = if is_direct { csv::direct_heading() } else { csv::heading() };
            writeln!(self.out, "{heading}")
        } else if self.args.json || !self.args.lists() {
            Ok(())
        } else {
            let heading = close_line::heading(self.shows_host, self.paint);
            writeln!(self.out, "{}", text::folded(&heading, self.width))
        }
    }

    fn entry(&mut self, entry: &Entry, summary: &mut Summary) -> io::Result<()> {
        let (record, micros) = match entry::kind(entry, self.trust) {
            Ok(Some(EntryKind::Close { record, micros })) => (record, micros),
            Ok(Some(EntryKind::Direct { record, micros })) => {
                if !filter::wanted_direct(self.args, &record) {
                    return Ok(());
                }
                self.due(micros, summary)?;
                return self.direct(&record, entry.host(), micros, summary);
            }
            Ok(Some(EntryKind::Back { user, gap_ms })) => {
                if filter::of_user(self.args, &user) {
                    summary.gap(gap_ms);
                }
                return Ok(());
            }
            Ok(Some(EntryKind::Attempts(attempts))) => {
                summary.attempts(attempts.n, attempts.wait_ms);
                return Ok(());
            }
            Ok(None) => return Ok(()),
            Err(Unusable::Broken(_)) => {
                self.broken += 1;
                return Ok(());
            }
            Err(Unusable::Foreign { .. }) => {
                self.foreign += 1;
                return Ok(());
            }
        };
        if record.reconciled.is_some() || !filter::wanted(self.args, &record) {
            return Ok(());
        }
        self.due(micros, summary)?;
        if self.args.has_table() {
            let changes = self.changes.before(micros, entry.host(), changes::boot(entry));
            self.between(changes)?;
        }
        self.close(&record, entry.host(), micros, summary)
    }

    /// Prints the reconciled records up to this time.
    fn due(&mut self, up_to: u64, summary: &mut Summary) -> io::Result<()> {
        while let Some(due) = self.reconciled.next(up_to) {
            // t3-trace may have written it in a later boot.
            let changes = self.changes.before(due.at, None, None);
            self.between(changes)?;
            self.close(&due.record, due.host.as_deref(), due.at, summary)?;
        }
        Ok(())
    }

    fn close(
        &mut self,
        record: &CloseRecord,
        host: Option<&str>,
        micros: u64,
        summary: &mut Summary,
    ) -> io::Result<()> {
        if self.args.csv {
            return writeln!(self.out, "{}", csv::row(record, host, micros));
        }
        if self.args.json {
            return writeln!(self.out, "{}", json::line(record, host, micros)?);
        }
        let at = micros / 1_000_000;
        if !self.is_listed(record, host, at, summary)? {
            return Ok(());
        }
        if let Some(change) = self.versions.change(record, host) {
            let line = format!("{}{}", text::INDENT, self.paint.dim(&text::safe(&change)));
            writeln!(self.out, "{}", text::folded(&line, self.width))?;
        }
        let host = self.shows_host.then(|| host.unwrap_or_default());
        let line = close_line::close(record, &local::clock(at), host, self.paint);
        writeln!(self.out, "{}", text::folded(&line, self.width))
    }

    /// Prints the changes before a close.
    fn between(&mut self, changes: Vec<Change>) -> io::Result<()> {
        for Change { at, host, text } in changes {
            let at = at / 1_000_000;
            self.day(at)?;
            let host = self.shows_host.then(|| host.as_deref().unwrap_or_default());
            let line = close_line::change(&text, &local::clock(at), host, self.paint);
            writeln!(self.out, "{}", text::folded(&line, self.width))?;
        }
        Ok(())
    }

    /// Counts a close, and returns whether it gets a line, after that of its day.
    fn is_listed(
        &mut self,
        record: &CloseRecord,
        host: Option<&str>,
        at: u64,
        summary: &mut Summary,
    ) -> io::Result<bool> {
        if self.args.incidents {
            self.incidents.close(record, host, at);
            return Ok(false);
        }
        summary.close(record, at);
        if self.args.summary {
            return Ok(false);
        }
        self.day(at)?;
        Ok(true)
    }

    /// Prints the day in front of its first line.
    fn day(&mut self, at: u64) -> io::Result<()> {
        let day = local::day(at);
        if day != self.day {
            writeln!(self.out, "{day}")?;
            self.day = day;
        }
        Ok(())
    }

    fn foot(&mut self, summary: Summary) -> io::Result<()> {
        if self.args.summarises() || self.args.incidents {
            let clock = |at| format!("{} {}", local::day(at), local::clock(at));
            let text = if self.args.incidents {
                std::mem::take(&mut self.incidents).text(self.width, clock)
            } else {
                summary.text(self.args.via, self.width, clock)
            };
            if self.args.lists() {
                writeln!(self.out)?;
            }
            self.out.write_all(text.as_bytes())?;
            if !self.warnings.is_empty() {
                let incomplete =
                    "incomplete: a part of the journal could not be read; see the messages on stderr";
                writeln!(self.out, "{}", text::folded(incomplete, self.width))?;
            }
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod direct_tests;

#[cfg(test)]
mod tests {
    use t3_record::{Cause, How, KernelSource, Segment, Verdict, journal::OPEN_ID, value::Percent};

    use super::*;

    pub(in crate::closes) fn record(
        user: &str,
        verdict: Verdict,
        segment: Segment,
        dur_ms: u64,
    ) -> CloseRecord {
        CloseRecord::new(
            user.to_owned(),
            "192.0.2.7".to_owned(),
            dur_ms,
            Cause::UpstreamClosed,
            verdict,
            segment,
            "c1".to_owned(),
            KernelSource::Tracepoint,
        )
    }

    fn shown(args: &ClosesArgs) -> String {
        shown_at(args, None)
    }

    fn shown_at(args: &ClosesArgs, width: Option<usize>) -> String {
        let paint = Paint { colour: false };
        let trust = Trust { dispatch: Some(991) };
        let mut shown = ClosesPrinter::new(args, Vec::new(), paint, width, trust);
        let mut summary = Summary::default();
        shown.heading().unwrap();
        let mut close = record("alice", Verdict::ServeKilled, Segment::Serve, 5000);
        close.how = Some(How::Signal(9));
        (close.psi_io, close.psi_mem) = (Some(Percent(45.0)), Some(Percent(3.0)));
        (close.hb_wait_ms, close.oom_kills) = (Some(15_000), Some(2));
        close.killed_by = Some("earlyoom of the host[812]".to_owned());
        let close = close.to_fields();
        let close = close.into_iter().map(|(name, value)| (name.into_owned(), value));
        let close: Vec<_> =
            close.chain([("__REALTIME_TIMESTAMP".to_owned(), "1700000042123456".to_owned())]).collect();
        let open = |gap: &str| {
            [("MESSAGE_ID", OPEN_ID), ("T3_USER", "alice"), ("T3_GAP_MS", gap)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec()
        };
        let broken = close.iter().filter(|(name, _)| name != "T3_CONN").cloned().collect();
        let other = vec![("MESSAGE".to_owned(), "hello".to_owned())];
        let mut bytes = Vec::new();
        for (fields, uid) in [
            (close.clone(), "991"),
            (broken, "991"),
            (close, "1000"),
            (open("40"), "991"),
            (open("9000"), "1000"),
            (other, "991"),
        ] {
            let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            bytes.extend(t3_record::journal::datagram(fields.chain([("_UID", uid)])));
            bytes.push(b'\n');
        }
        let mut entries = crate::journal::export_format::Entries::new(&bytes[..]);
        while let Some(entry) = entries.read().unwrap() {
            shown.entry(entry, &mut summary).unwrap();
        }
        assert_eq!((shown.broken, shown.foreign), (1, 2));
        shown.foot(summary).unwrap();
        String::from_utf8(shown.out).unwrap()
    }

    #[test]
    fn only_a_table_has_a_summary() {
        let table = shown(&ClosesArgs::default());
        assert!(table.starts_with("TIME ") && table.contains("  serve_killed  "), "{table}");
        assert!(table.contains("\n\n1 closes\n") && table.contains("reconnected after  p10 40ms"), "{table}");
        let summary = shown(&ClosesArgs { summary: true, ..ClosesArgs::default() });
        assert!(summary.starts_with("1 closes\n"), "{summary}");
        let only = shown(&ClosesArgs { no_summary: true, ..ClosesArgs::default() });
        assert_eq!(only.lines().count(), 3, "{only}");
        let json = shown(&ClosesArgs { json: true, ..ClosesArgs::default() });
        assert!(
            json.starts_with("{\"schema\":2,\"time\":\"2023-11-14T22:14:02.123456Z\",\"user\":\"alice\""),
            "{json}"
        );
        assert_eq!(json.lines().count(), 1, "{json}");
        let csv = shown(&ClosesArgs { csv: true, ..ClosesArgs::default() });
        assert!(csv.starts_with("schema,time,user,") && csv.lines().count() == 2, "{csv}");
        assert!(csv.contains("\n2,2023-11-14T22:14:02.123456Z,alice,"), "{csv}");
    }

    #[test]
    fn reconciled_records_are_listed_at_the_time_of_the_close() {
        let written = |conn: &str, at: u64, ended_at: Option<u64>| {
            let mut close = record("alice", Verdict::DispatchDied, Segment::Dispatch, 1);
            close.conn = conn.to_owned();
            close.reconciled = ended_at.map(|_| t3_record::vocabulary::Reconciled::Journal);
            close.ended_at = ended_at.and_then(|secs| crate::time::rfc3339(secs * 1_000_000));
            (close, at * 1_000_000)
        };
        let entries = [
            written("first", 100, None),
            written("third", 300, None),
            written("second", 400, Some(200)),
            written("fourth", 400, Some(390)),
        ];
        for args in [
            ClosesArgs { json: true, ..ClosesArgs::default() },
            ClosesArgs { csv: true, ..ClosesArgs::default() },
        ] {
            let mut shown = ClosesPrinter::new(
                &args,
                Vec::new(),
                Paint { colour: false },
                None,
                Trust { dispatch: Some(991) },
            );
            let mut summary = Summary::default();
            for (record, at) in &entries {
                if let Some(at) = reconciled::closed_at(&args, record, *at) {
                    shown.reconciled.keep(at, Box::new(record.clone()), None);
                }
            }
            shown.reconciled.sort();
            let mut bytes = Vec::new();
            for (record, at) in &entries {
                let (fields, at) = (record.to_fields(), at.to_string());
                let fields = fields.iter().map(|(name, value)| (name.as_ref(), value.as_str()));
                let more = [("__REALTIME_TIMESTAMP", at.as_str()), ("_UID", "991")];
                bytes.extend(t3_record::journal::datagram(fields.chain(more)));
                bytes.push(b'\n');
            }
            let mut read = crate::journal::export_format::Entries::new(&bytes[..]);
            while let Some(entry) = read.read().unwrap() {
                shown.entry(entry, &mut summary).unwrap();
            }
            shown.due(u64::MAX, &mut summary).unwrap();
            let text = String::from_utf8(shown.out).unwrap();
            let mut at = 0;
            for (conn, time) in
                [("first", "01:40"), ("second", "03:20"), ("third", "05:00"), ("fourth", "06:30")]
            {
                let line = text[at..].lines().position(|line| line.contains(conn) && line.contains(time));
                assert!(line.is_some(), "{conn} {time}:\n{text}");
                at += text[at..].find(conn).unwrap();
            }
            assert_eq!(text.matches("alice").count(), 4);
        }
    }

    #[test]
    fn the_output_fits_its_terminal_and_breaks_no_word() {
        // Bars are as long as the width allows.
        let words = |text: &str| {
            let word = |word: &str| if word.starts_with('#') { "#".to_owned() } else { word.to_owned() };
            text.split_whitespace().map(word).collect::<Vec<_>>()
        };
        let args = ClosesArgs::default();
        let expected = words(&shown(&args));
        for width in [60, 80, 120] {
            let text = shown_at(&args, Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            assert_eq!(words(&text), expected, "{width}:\n{text}");
            for part in
                ["PSI / HEARTBEAT", "ping unanswered 15.0s", "by earlyoom of the host[812]", "p90 4.9s"]
            {
                assert!(text.lines().any(|line| line.contains(part)), "{part:?} at {width}:\n{text}");
            }
        }
    }
}
