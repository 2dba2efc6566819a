//! Metrics of t3-dispatch for Prometheus; docs/METRICS.md lists them. Callers report each event to
//! [`Metrics`] with one call; counting is an atomic addition and never waits, locks or fails.
//!
//! Labels are closed vocabularies ([`labels`]). No label names a user, address, login or session.

pub mod families;
pub mod gauges;
mod journal_check;
pub mod labels;
pub mod page;
pub mod reject_reason;
pub mod server;
mod session_counters;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{Response, StatusCode};
use prometheus::proto::MetricType;
use prometheus::{Histogram, IntCounter, Registry};
use t3_record::{CloseRecord, KernelSource};

pub use self::labels::{
    AttemptEnd, AttemptKind, ConnectResult, InvalidRequest, JournalOutcome, PairingOutcome, ReloadResult,
    ResponseSource, State, StatusClass,
};
use self::{
    families::{CounterVec, CounterVec2, MetricBuilder},
    page::ScrapeMetrics,
    session_counters::SessionCounters,
};

/// Buckets of session durations, in seconds, from a second to a day.
const SESSION_DURATIONS: &[f64] = &[
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0,
];
/// Buckets of heartbeat RTTs, in seconds, up to the watchdog of the client.
const HEARTBEAT_RTTS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0];
/// Buckets of reconnect gaps, in seconds, up to the minute within which a new session counts as a
/// reconnect.
const RECONNECT_GAPS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0];
/// Buckets of event loop lag, in seconds; the timer itself rounds up to a millisecond.
const LOOP_LAGS: &[f64] = &[0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All metrics of one t3-dispatch process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sessions: SessionCounters,
    at_scrape: Mutex<ScrapeMetrics>,
    durations: Histogram,
    heartbeat_rtts: Histogram,
    reconnect_gaps: Histogram,
    loop_lags: Histogram,
    evidence: CounterVec<KernelSource>,
    kernel_lost: IntCounter,
    delivery_timeouts: IntCounter,
    resumed: IntCounter,
    not_resumed: IntCounter,
    pairings: CounterVec<PairingOutcome>,
    invalid_requests: CounterVec<InvalidRequest>,
    responses: CounterVec2<StatusClass, ResponseSource>,
    upstream: CounterVec<ConnectResult>,
    reloads: CounterVec<ReloadResult>,
    attempts: CounterVec2<AttemptKind, AttemptEnd>,
}

impl Default for Metrics {
    fn default() -> Self {
        let builder = MetricBuilder::default();
        builder.info(
            "build_info",
            "Always 1; the label is the running version.",
            "version",
            env!("CARGO_PKG_VERSION"),
        );
        builder.process();
        Self {
            sessions: SessionCounters::default(),
            at_scrape: Mutex::new(ScrapeMetrics::new(&builder)),
            durations: builder.histogram(
                "session_duration_seconds",
                "Duration of WebSockets (`dur_ms` of their record), in seconds.",
                SESSION_DURATIONS,
            ),
            heartbeat_rtts: builder.histogram(
                "heartbeat_rtt_seconds",
                "Heartbeat RTT between client and serve, in seconds.",
                HEARTBEAT_RTTS,
            ),
            reconnect_gaps: builder.histogram(
                "reconnect_gap_seconds",
                "Time from a close to the next open of the same user and address within a minute, in seconds.",
                RECONNECT_GAPS,
            ),
            loop_lags: builder.histogram(
                "event_loop_lag_seconds",
                "Event loop lag, sampled ten times a second, in seconds.",
                LOOP_LAGS,
            ),
            evidence: builder.counter_vec("evidence_total", "Records by source of their kernel evidence."),
            kernel_lost: builder
                .counter("kernel_events_lost_total", "Kernel events that t3-trace reported as lost."),
            resumed: builder
                .counter("sessions_resumed_total", "WebSockets continued from the process before a restart."),
            not_resumed: builder.counter(
                "sessions_not_resumed_total",
                "WebSockets of the process before a restart that were not continued.",
            ),
            delivery_timeouts: builder.counter(
                "delivery_timeouts_total",
                "WebSockets that were cut because a peer did not take what the other one had sent before its end, within the close timeout.",
            ),
            pairings: builder.counter_vec("pairings_total", "Pairings of browsers by outcome."),
            invalid_requests: builder.counter_vec(
                "bad_requests_total",
                "Invalid HTTP requests rejected, by response status.",
            ),
            responses: builder.counter_vec2(
                "http_responses_total",
                "HTTP responses by status class and source (serve, dispatch).",
            ),
            upstream: builder
                .counter_vec("upstream_connections_total", "Upstream connections by result (new, reused, failed)."),
            reloads: builder.counter_vec("table_reloads_total", "Reloads of the routing table by result."),
            attempts: builder.counter_vec2(
                "connections_without_request_total",
                "Connections that ended before a complete request was read: late (dispatch kept them waiting for 1 s or longer), partial (a part arrived), empty (nothing arrived in 1 s or longer); by their end.",
            ),
            registry: builder.registry,
        }
    }
}

impl Metrics {
    /// An upgrade is forwarded to serve; exactly one `ws close` must follow.
    pub fn upgrade_forwarded(&self) {
        self.sessions.forwarded();
    }

    /// A WebSocket opened. `gap`: time since the last close of the same user and address, if within
    /// a minute.
    pub fn opened(&self, gap: Option<Duration>) {
        self.sessions.opened();
        if let Some(gap) = gap {
            self.reconnect_gaps.observe(gap.as_secs_f64());
        }
    }

    /// A session of the process before was continued.
    pub fn resumed(&self) {
        self.sessions.resumed();
        self.resumed.inc();
    }

    /// The record of a session of the process before that was not continued.
    pub fn closed_before(&self, record: &CloseRecord) {
        // Its opening was counted by that process.
        self.sessions.resumed();
        self.sessions.ended(true);
        self.closed(record, true);
    }

    /// A session of the process before was not continued.
    pub fn not_resumed(&self) {
        self.not_resumed.inc();
    }

    /// The first leg of a WebSocket ended, or its open failed. Called once per WebSocket; `open`:
    /// it was open.
    pub fn ended(&self, open: bool) {
        self.sessions.ended(open);
    }

    /// A record was written. `open`: the WebSocket had been open.
    pub fn closed(&self, record: &CloseRecord, open: bool) {
        self.sessions.closed(record.verdict, record.cause);
        if open {
            self.durations.observe(Duration::from_millis(record.dur_ms).as_secs_f64());
        }
        self.evidence.of(record.kernel).inc();
        self.kernel_lost.inc_by(record.lost.unwrap_or(0));
    }

    /// serve replied to a heartbeat.
    pub fn heartbeat(&self, rtt: Duration) {
        self.heartbeat_rtts.observe(rtt.as_secs_f64());
    }

    /// A peer did not take what the other one had sent before its end.
    pub fn delivery_timed_out(&self) {
        self.delivery_timeouts.inc();
    }

    /// Event loop lag.
    pub fn loop_lag(&self, by: Duration) {
        self.loop_lags.observe(by.as_secs_f64());
    }

    /// A pairing ended.
    pub fn pairing(&self, how: PairingOutcome) {
        self.pairings.of(how).inc();
    }

    /// An invalid HTTP request.
    pub fn invalid_request(&self, status: StatusCode) {
        self.invalid_requests.of(InvalidRequest::of(status)).inc();
    }

    /// A response was sent. Responses of serve carry the mark of [`mark_as_serve`].
    pub fn response<B>(&self, response: &Response<B>) {
        let by = response.extensions().get::<ResponseSource>().copied().unwrap_or(ResponseSource::Own);
        self.responses.of(StatusClass::of(response.status()), by).inc();
    }

    /// An upstream connection was obtained or failed.
    pub fn connection(&self, how: ConnectResult) {
        self.upstream.of(how).inc();
    }

    /// Counts the result of a new upstream connection and returns it.
    pub fn connected<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        self.connection(if result.is_ok() { ConnectResult::New } else { ConnectResult::Failed });
        result
    }

    /// A connection ended before a complete request was read.
    pub fn attempt(&self, kind: AttemptKind, end: AttemptEnd) {
        self.attempts.of(kind, end).inc();
    }

    /// The routing table was reloaded.
    pub fn table_reload(&self, result: ReloadResult) {
        self.reloads.of(result).inc();
    }
}

/// One family of metrics, for documentation and for checks of dashboards and queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub help: String,
    /// Labels with all their values.
    pub labels: Vec<(String, Vec<String>)>,
}

impl Metrics {
    /// Returns all families in the order of the page, also those that it lacks at present.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let at_scrape = self.at_scrape.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.registry.gather();
        all.extend(at_scrape.occasional());
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all.iter().map(family).collect()
    }

    /// Returns the upper bounds of each histogram's buckets, except +Inf.
    #[must_use]
    pub fn bounds(&self) -> Vec<(String, Vec<f64>)> {
        let all = self.registry.gather();
        let bounds = |family: &prometheus::proto::MetricFamily| {
            let first = family.get_metric().first()?;
            let buckets = first.get_histogram().get_bucket();
            Some((family.name().to_owned(), buckets.iter().map(|bucket| bucket.upper_bound()).collect()))
        };
        all.iter()
            .filter(|family| family.get_field_type() == MetricType::HISTOGRAM)
            .filter_map(bounds)
            .collect()
    }
}

fn family(family: &prometheus::proto::MetricFamily) -> Family {
    let mut labels: Vec<(String, Vec<String>)> = Vec::new();
    for pair in family.get_metric().iter().flat_map(prometheus::proto::Metric::get_label) {
        let (name, value) = (pair.name(), pair.value());
        match labels.iter_mut().find(|(label, _)| label == name) {
            Some((_, values)) if values.iter().any(|known| known == value) => {}
            Some((_, values)) => values.push(value.to_owned()),
            None => labels.push((name.to_owned(), vec![value.to_owned()])),
        }
    }
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::HISTOGRAM => "histogram",
        _ => "gauge",
    };
    Family { name: family.name().to_owned(), kind, help: family.help().to_owned(), labels }
}

/// Marks a response as coming from serve; all others come from t3-dispatch.
pub fn mark_as_serve<B>(response: &mut Response<B>) {
    response.extensions_mut().insert(ResponseSource::Serve);
}
