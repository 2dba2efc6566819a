//! Compares the journal with the sessions: one correct record for each, and delays. No IO.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use t3_record::{Confidence, KernelSource};

use super::{
    client::Seen,
    expected_record::{self, Strictness},
    journal_reader::{Close, JournalReader},
    outages::Outages,
    plan::{Act, Plan},
    serve::ServeReport,
    setup::{Fixture, Phase},
};
use crate::bench::stats::quantile;

/// Distribution of times in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Times {
    pub n: usize,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

impl Times {
    pub(crate) fn of(mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        let at = |part| quantile(&nanos, part) / 1_000;
        Self { n: nanos.len(), p50_us: at(0.5), p99_us: at(0.99), max_us: at(1.0) }
    }
}

/// Numbers of a phase.
#[derive(Debug, Serialize)]
pub struct Row {
    pub phase: &'static str,
    pub sessions: usize,
    pub seconds: f64,
    /// From the handshake to its response.
    pub open: Times,
    /// From the act of one peer to its arrival at the other.
    pub pass_on: Times,
    /// From the act to the record, for records without a delay.
    pub at_once: Times,
    /// From the act to the record, for downstream cuts, which wait 500 ms for a burst.
    pub cut: Times,
    /// Records by source of kernel evidence.
    pub kernel: BTreeMap<&'static str, usize>,
    /// Records with confidence `likely`.
    pub likely: usize,
    /// Resident memory of dispatch after it, in KiB.
    pub dispatch_kib: u64,
}

/// Result of the audit.
#[derive(Debug, Default, Serialize)]
pub struct Audit {
    /// Sessions that opened, as seen by the clients, without those of `unstored`.
    pub opened: usize,
    pub opens: usize,
    /// Opened sessions whose `ws open` the full disk did not take.
    pub unstored: usize,
    /// Sessions during which dispatch died.
    pub interrupted: usize,
    /// `ws close` records that t3-trace wrote, by `reconciled=`.
    pub by_trace: BTreeMap<String, usize>,
    /// Sessions that must have a `ws close`.
    pub expected: usize,
    pub closes: usize,
    /// Clients that left before their request reached serve.
    pub unseen: usize,
    /// Sessions without a record.
    pub missing: usize,
    /// Mismatches by kind.
    pub kinds: BTreeMap<String, usize>,
    pub rows: Vec<Row>,
    /// The first mismatches of each kind, one line each.
    pub examples: Vec<String>,
}

/// Maximum number of examples of one kind.
const EXAMPLES: usize = 3;

impl Audit {
    fn wrong(&mut self, kind: String, example: impl FnOnce() -> String) {
        let count = self.kinds.entry(kind.clone()).or_default();
        *count += 1;
        if *count <= EXAMPLES {
            self.examples.push(format!("{kind}: {}", example()));
        }
    }

    /// Number of mismatches.
    #[must_use]
    pub fn wrongs(&self) -> usize {
        self.kinds.values().sum()
    }
}

/// What records are compared with.
pub(crate) struct AuditInput<'a> {
    pub serve_reports: HashMap<u32, ServeReport>,
    pub outages: &'a Outages,
    pub serve_pid: &'a dyn Fn(&Plan) -> Option<u32>,
}

pub(crate) fn audit(phases: &[Phase], reader: &JournalReader, input: &AuditInput<'_>) -> Audit {
    let mut audit = Audit { opens: reader.lines.0, closes: reader.lines.1, ..Audit::default() };
    let mut known = 0;
    for phase in phases {
        let mut row = Samples::default();
        for seen in &phase.seen {
            known += one(&mut audit, &mut row, seen, reader, input);
        }
        audit.rows.push(row.sum_up(phase));
    }
    if known != audit.closes {
        let strange = audit.closes.abs_diff(known);
        audit.wrong("records without a session".to_owned(), || {
            format!("{strange} `ws close` records belong to no session")
        });
    }
    audit
}

#[derive(Default)]
struct Samples {
    open: Vec<u64>,
    pass_on: Vec<u64>,
    at_once: Vec<u64>,
    cut: Vec<u64>,
    kernel: BTreeMap<&'static str, usize>,
    likely: usize,
}

impl Samples {
    fn sum_up(self, phase: &Phase) -> Row {
        Row {
            phase: phase.name,
            sessions: phase.seen.len(),
            seconds: phase.took.as_secs_f64(),
            open: Times::of(self.open),
            pass_on: Times::of(self.pass_on),
            at_once: Times::of(self.at_once),
            cut: Times::of(self.cut),
            kernel: self.kernel,
            likely: self.likely,
            dispatch_kib: phase.dispatch_kib,
        }
    }
}

/// Audits one session; returns its number of records.
fn one(
    audit: &mut Audit,
    row: &mut Samples,
    seen: &Seen,
    reader: &JournalReader,
    input: &AuditInput<'_>,
) -> usize {
    let plan = &seen.plan;
    let (ray, act) = (plan.ray(), plan.act.name());
    let report = input.serve_reports.get(&plan.id).copied().unwrap_or_default();
    let is_cut = input.outages.dispatch_died_during(seen);
    let is_interrupted = input.outages.dispatch_died_before_record(seen);
    audit.interrupted += usize::from(is_cut);
    if !is_cut {
        browser(audit, row, seen, &report);
    }
    let opens = reader.opens.get(&ray).map_or(&[][..], Vec::as_slice);
    let closes = reader.closes.get(&ray).map_or(&[][..], Vec::as_slice);
    // With a death of dispatch a session has opened if its client or the journal says so.
    let has_opened = plan.act.opens() && (!is_cut || seen.status == 101 || !opens.is_empty());
    let is_unstored = has_opened && opens.is_empty() && input.outages.disk_was_full_during(seen);
    audit.unstored += usize::from(is_unstored);
    audit.opened += usize::from(has_opened && !is_unstored);
    if opens.len() != usize::from(has_opened && !is_unstored) {
        audit.wrong(format!("{} `ws open` records", opens.len()), || format!("{act} {ray} {seen:?}"));
    }
    // A request together with its FIN may not reach serve; then no record is expected.
    let unseen = plan.act == Act::Gone && report == ServeReport::default() && closes.is_empty();
    audit.unseen += usize::from(unseen);
    // A request without a 101 may have a record if dispatch died before that was written: only an
    // opened WebSocket is promised one.
    let expected = if is_interrupted && !has_opened {
        closes.len().min(usize::from(expected_record::has_record(plan.act)))
    } else {
        usize::from(expected_record::has_record(plan.act) && !unseen)
    };
    audit.expected += expected;
    audit.missing += expected.saturating_sub(closes.len());
    if closes.len() != expected {
        audit.wrong(format!("{} `ws close` records", closes.len()), || {
            let lines: Vec<_> =
                closes.iter().map(|close| format!("[{}] {}", close.pid, close.record.to_line())).collect();
            format!("{act} {ray} {seen:?} {report:?} {lines:?}")
        });
    }
    let conns = opens.iter().map(String::as_str).chain(closes.iter().map(|close| close.record.conn.as_str()));
    let conns: BTreeSet<&str> = conns.collect();
    if conns.len() > 1 {
        audit.wrong("several session ids".to_owned(), || format!("{act} {ray} {conns:?}"));
    }
    for close in closes {
        let record = &close.record;
        *row.kernel.entry(record.kernel.as_str()).or_default() += 1;
        row.likely += usize::from(record.confidence == Some(Confidence::Likely));
        let is_by_dispatch = input.outages.dispatch.contains(&close.pid);
        if !is_by_dispatch {
            let origin = record.reconciled.map_or("death", |origin| origin.as_str());
            *audit.by_trace.entry(origin.to_owned()).or_default() += 1;
            if !is_interrupted && record.reconciled.is_none() {
                audit.wrong("written by another process".to_owned(), || {
                    format!("{act} [{}] {}", close.pid, record.to_line())
                });
            }
        }
        // t3-trace writes the record of dispatch itself again, or knows less.
        let strictness =
            if is_by_dispatch || !is_interrupted { Strictness::Complete } else { Strictness::AfterDeath };
        for mismatch in expected_record::mismatches(
            plan,
            &Fixture::user(plan),
            (input.serve_pid)(plan),
            record,
            strictness,
        ) {
            let kind = format!(
                "{act} kernel={} {}={} not {}",
                record.kernel, mismatch.key, mismatch.got, mismatch.expected
            );
            audit.wrong(kind, || record.to_line());
        }
        if is_by_dispatch {
            times(audit, row, seen, &report, close);
        }
    }
    closes.len()
}

/// Delay of a record of dispatch.
fn times(audit: &mut Audit, row: &mut Samples, seen: &Seen, report: &ServeReport, close: &Close) {
    let (plan, record) = (&seen.plan, &close.record);
    let acted = [seen.acted, report.acted, seen.asked].into_iter().find(|at| *at != 0).unwrap_or(0);
    let took = close.taken.saturating_sub(acted);
    if plan.act.cuts() {
        row.cut.push(took);
    } else {
        row.at_once.push(took);
    }
    if record.kernel == KernelSource::Timeout && took < 250_000_000 {
        audit.wrong("kernel=timeout before 250 ms".to_owned(), || {
            format!("{} {took} ns {}", plan.act.name(), record.to_line())
        });
    }
}

/// Checks what client and serve observed.
fn browser(audit: &mut Audit, row: &mut Samples, seen: &Seen, report: &ServeReport) {
    let plan = &seen.plan;
    let (ray, act) = (plan.ray(), plan.act.name());
    if !seen.finished {
        audit.wrong(format!("{act} did not finish"), || format!("{ray} {seen:?} {report:?}"));
    }
    let right = match plan.act {
        Act::Stranger => seen.status == 403,
        Act::Status(status) => seen.status == status,
        Act::Gone => true,
        act if act.opens() => seen.status == 101,
        _ => seen.status >= 500,
    };
    if !right {
        audit.wrong(format!("{act} got status {}", seen.status), || ray.clone());
    }
    if seen.answered != 0 && plan.act.opens() {
        row.open.push(seen.answered.saturating_sub(seen.asked));
    }
    let (acted, ended) =
        if plan.act.is_serves() { (report.acted, seen.ended) } else { (seen.acted, report.ended) };
    if plan.act.opens() && acted != 0 && ended != 0 {
        row.pass_on.push(ended.saturating_sub(acted));
    }
}
