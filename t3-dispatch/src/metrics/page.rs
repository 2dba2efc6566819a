//! Metrics page: updates the values that other components keep and renders the exposition text
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4).

use std::sync::PoisonError;

use prometheus::{IntCounter, IntGauge, TextEncoder, proto::MetricFamily};
use t3_record::{
    vocabulary::{Cause, Verdict},
    wire::JournalState,
};

use super::{
    Metrics,
    families::{CounterVec, CounterVec2, GaugeVec, MetricBuilder, catch_up},
    gauges::Gauges,
    journal_check::JournalCheck,
    labels::{JournalOutcome, Label, Limit, State},
    reject_reason::RejectReason,
    session_counters::Snapshot,
};

/// Content-Type of the page.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Metrics that are updated when the page is rendered.
#[derive(Debug)]
pub(super) struct ScrapeMetrics {
    upgrades: IntCounter,
    opens: IntCounter,
    closes: CounterVec2<Verdict, Cause>,
    sessions: GaugeVec<State>,
    rejected: CounterVec<RejectReason>,
    journal_entries: CounterVec<JournalOutcome>,
    journal_waiting: IntGauge,
    lines_lost: IntCounter,
    lag_worst: prometheus::Gauge,
    trace_connected: IntGauge,
    without_heartbeat: IntGauge,
    table_logins: IntGauge,
    connections: IntGauge,
    connections_untrusted: IntGauge,
    requests: IntGauge,
    probes: IntGauge,
    limits: GaugeVec<Limit>,
    lines_suppressed: IntCounter,
    journal_check: JournalCheck,
}

impl ScrapeMetrics {
    /// Returns the families that are on the page only at times.
    pub(super) fn occasional(&self) -> Vec<MetricFamily> {
        self.journal_check.gather(JournalState::default())
    }

    pub(super) fn new(builder: &MetricBuilder) -> Self {
        Self {
            upgrades: builder.counter(
                "upgrades_total",
                "WebSocket upgrades forwarded to serve; each produces exactly one record.",
            ),
            opens: builder.counter("opens_total", "Opened WebSockets (serve answered 101)."),
            closes: builder.counter_vec2(
                "closes_total",
                "Closed WebSockets by verdict and cause, including failed opens.",
            ),
            sessions: builder.gauge_vec(
                "sessions",
                "WebSockets without a record, by state (opening, open, closing).",
            ),
            rejected: builder.counter_vec("refused_total", "Requests rejected before they reached serve, by reason."),
            journal_entries: builder.counter_vec(
                "journal_entries_total",
                "Records of all kinds (`ws open`, `ws close`, `ws burst`, `ws attempts`) by outcome: accepted by journald (written), lost because journald was unavailable too long, or set aside because the record can never be sent (rejected).",
            ),
            journal_waiting: builder.gauge("journal_entries_waiting", "Records queued for journald."),
            lines_lost: builder.counter(
                "log_lines_lost_total",
                "Log lines (not records) dropped because they came faster than they could be written.",
            ),
            lag_worst: builder
                .float_gauge("event_loop_lag_worst_seconds", "Worst event loop lag in the last 30 s, in seconds."),
            trace_connected: builder.gauge("trace_connected", "1 while t3-trace is connected, else 0."),
            without_heartbeat: builder.gauge(
                "sessions_without_heartbeat",
                "WebSockets older than 30 s in which no heartbeat was recognised (`hb_by=none`).",
            ),
            table_logins: builder.gauge("table_logins", "Logins in the routing table."),
            connections: builder.gauge(
                "connections",
                "Open HTTP connections of clients, without WebSockets (--max-connections).",
            ),
            connections_untrusted: builder
                .gauge("connections_untrusted", "Those of them whose peer is not trusted."),
            requests: builder.gauge("requests_in_flight", "HTTP requests of users in flight, without WebSockets."),
            probes: builder.gauge("probes", "Open WebSockets of /probe/ws (--max-probes)."),
            limits: builder.gauge_vec(
                "limit",
                "Limits in effect; lower than the options if there are too few file descriptors.",
            ),
            lines_suppressed: builder.counter(
                "log_lines_suppressed_total",
                "Log lines (not records) about rejected or failed requests above the log budget; the log has their number.",
            ),
            journal_check: JournalCheck::default(),
        }
    }

    fn update(&self, metrics: &Metrics, gauges: &Gauges) {
        self.update_sessions(&metrics.sessions.snapshot());
        for &why in <RejectReason as Label>::ALL {
            catch_up(self.rejected.of(why), gauges.rejections[why as usize]);
        }
        catch_up(self.journal_entries.of(JournalOutcome::Written), gauges.records_written);
        catch_up(self.journal_entries.of(JournalOutcome::Lost), gauges.records_dropped);
        catch_up(self.journal_entries.of(JournalOutcome::Rejected), gauges.records_rejected);
        self.journal_waiting.set(to_i64(gauges.records_waiting));
        catch_up(&self.lines_lost, t3_journal::log_queue::dropped());
        #[expect(clippy::cast_precision_loss, reason = "a delay stays far below 2^53 ns, which is 104 days")]
        self.lag_worst.set(gauges.worst_lag.map_or(0.0, |late| late as f64 / 1e9));
        self.trace_connected.set(i64::from(gauges.evidence_connected));
        self.without_heartbeat.set(to_i64(gauges.without_heartbeat as u64));
        self.table_logins.set(to_i64(gauges.logins as u64));
        self.connections.set(to_i64(gauges.connections.0 as u64));
        self.connections_untrusted.set(to_i64(gauges.connections.1 as u64));
        self.requests.set(to_i64(gauges.requests as u64));
        self.probes.set(to_i64(gauges.probes as u64));
        for &limit in Limit::ALL {
            self.limits.of(limit).set(to_i64(gauges.limits[limit.index()]));
        }
        catch_up(&self.lines_suppressed, gauges.lines_suppressed);
    }

    fn update_sessions(&self, snapshot: &Snapshot) {
        catch_up(&self.upgrades, snapshot.forwarded);
        catch_up(&self.opens, snapshot.opened);
        for &verdict in Verdict::ALL {
            for &cause in Cause::ALL {
                catch_up(self.closes.of(verdict, cause), snapshot.closed(verdict, cause));
            }
        }
        self.sessions.of(State::Opening).set(to_i64(snapshot.opening()));
        self.sessions.of(State::Open).set(to_i64(snapshot.open()));
        self.sessions.of(State::Closing).set(to_i64(snapshot.closing()));
    }
}

fn to_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Renders the page. Reads procfs, so it must not run on the event loop.
///
/// # Errors
/// A family without series, which a test excludes.
pub fn render(metrics: &Metrics, gauges: &Gauges) -> prometheus::Result<String> {
    // Pages are rendered one at a time: each adds to the counters the difference since the previous
    // one.
    let at_scrape = metrics.at_scrape.lock().unwrap_or_else(PoisonError::into_inner);
    at_scrape.update(metrics, gauges);
    let mut text = String::with_capacity(32 << 10);
    let mut families = metrics.registry.gather();
    if let Some(state) = gauges.journal {
        families.extend(at_scrape.journal_check.gather(state));
        families.sort_by(|a, b| a.name().cmp(b.name()));
    }
    TextEncoder::new().encode_utf8(&families, &mut text)?;
    Ok(text)
}
