//! The page that Prometheus reads: brings what is counted elsewhere up to date and writes
//! everything down as text (<https://prometheus.io/docs/instrumenting/exposition_formats/>, version
//! 0.0.4).

use std::sync::PoisonError;

use prometheus::{IntCounter, IntGauge, TextEncoder};
use t3_record::vocabulary::{Cause, Verdict};

use super::{
    Metrics,
    families::{Counters, Counters2, GaugeVec, Maker, follow},
    gauges::Gauges,
    labels::{Entry, State, Word},
    process::Process,
    reject_reason::RejectReason,
    session_counters::Now,
};

/// The page's type.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// What is set when the page is made.
#[derive(Debug)]
pub(super) struct Late {
    upgrades: IntCounter,
    opens: IntCounter,
    closes: Counters2<Verdict, Cause>,
    sessions: GaugeVec<State>,
    refused: Counters<RejectReason>,
    entries: Counters<Entry>,
    entries_waiting: IntGauge,
    lines_lost: IntCounter,
    lag_worst: prometheus::Gauge,
    trace_connected: IntGauge,
    table_logins: IntGauge,
    process: Process,
}

impl Late {
    pub(super) fn new(make: &Maker) -> Self {
        Self {
            upgrades: make.counter(
                "upgrades_total",
                "WebSocket upgrades forwarded to serve; each produces exactly one record.",
            ),
            opens: make.counter("opens_total", "Opened WebSockets (101 relayed to the client)."),
            closes: make.counters2(
                "closes_total",
                "Closed WebSockets by verdict and cause, including failed opens.",
            ),
            sessions: make.gauges(
                "sessions",
                "WebSockets without a record, by state (opening, open, closing).",
            ),
            refused: make.counters("refused_total", "Requests rejected before they reached serve, by reason."),
            entries: make.counters(
                "journal_entries_total",
                "Records of all kinds (`ws open`, `ws close`, `ws burst`) by outcome: written, or lost because journald was unavailable too long.",
            ),
            entries_waiting: make.gauge("journal_entries_waiting", "Records queued for journald."),
            lines_lost: make.counter(
                "log_lines_lost_total",
                "Log lines (not records) dropped because they came faster than they could be written.",
            ),
            lag_worst: make
                .real("event_loop_lag_worst_seconds", "Worst event loop lag in the last 30 s, in seconds."),
            trace_connected: make.gauge("trace_connected", "1 while t3-trace is connected, else 0."),
            table_logins: make.gauge("table_logins", "Logins in the routing table."),
            process: Process::new(make),
        }
    }

    fn update(&self, metrics: &Metrics, gauges: &Gauges) {
        self.lives(&metrics.lives.now());
        for &why in <RejectReason as Word>::ALL {
            follow(self.refused.of(why), gauges.rejections[why as usize]);
        }
        follow(self.entries.of(Entry::Written), gauges.records_written);
        follow(self.entries.of(Entry::Lost), gauges.records_dropped);
        self.entries_waiting.set(whole(gauges.records_waiting));
        follow(&self.lines_lost, t3_journal::log_queue::dropped());
        #[expect(
            clippy::cast_precision_loss,
            reason = "delays of ours stay far below 2^53 ns, which are 104 days"
        )]
        self.lag_worst.set(gauges.worst_lag.map_or(0.0, |late| late as f64 / 1e9));
        self.trace_connected.set(i64::from(gauges.evidence_connected));
        self.table_logins.set(whole(gauges.logins as u64));
        self.process.read();
    }

    fn lives(&self, now: &Now) {
        follow(&self.upgrades, now.asked);
        follow(&self.opens, now.opened);
        for &verdict in Verdict::ALL {
            for &cause in Cause::ALL {
                follow(self.closes.of(verdict, cause), now.closed(verdict, cause));
            }
        }
        self.sessions.of(State::Opening).set(whole(now.opening()));
        self.sessions.of(State::Open).set(whole(now.open()));
        self.sessions.of(State::Closing).set(whole(now.closing()));
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The page of this moment. Reads procfs: not for the event loop.
///
/// # Errors
/// When a family has no series, which a test excludes.
pub fn page(metrics: &Metrics, gauges: &Gauges) -> prometheus::Result<String> {
    // Pages are made one at a time: each adds to the counters what has come since the one before.
    let late = metrics.late.lock().unwrap_or_else(PoisonError::into_inner);
    late.update(metrics, gauges);
    let mut text = String::with_capacity(32 << 10);
    TextEncoder::new().encode_utf8(&metrics.registry.gather(), &mut text)?;
    Ok(text)
}
