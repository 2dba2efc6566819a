//! Queries the layers around one close: Loki, Prometheus and log files.
//!
//! `t3_record::edge` parses their lines, `t3_record::edge::refine` draws the conclusion. A layer
//! that fails does not affect the others: each has a separate status. Runs as the operator of
//! `t3-trace explain`. Data from the network is hostile: bounded, parsed here, made printable. The
//! privileged daemon parses nothing from the network and never calls this module.

pub mod args;
mod ask;
mod files;
mod folder;
mod legs;
mod loki;
mod prometheus;

use std::{cell::OnceCell, time::SystemTime};

use t3_record::edge::{Ended, Layers, statement::ray_id};

use self::ask::LayerQuery;
use crate::server::source::Source;
pub use args::LayerArgs;

/// Start of the window before the close, in milliseconds: one or two scrapes of Prometheus, and the
/// lines of a failing tunnel.
const BEFORE: i64 = 60_000;
/// End of the window after the close, in milliseconds: lines are written late, and a tunnel logs
/// its reconnect.
const AFTER: i64 = 60_000;
/// Limit of the extension of the window by missing heartbeats, in milliseconds.
const SILENCE: u64 = 300_000;

/// Time range of the queries in milliseconds since the epoch, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from_ms: i64,
    pub until_ms: i64,
}

impl Window {
    /// One minute before and after the close, extended by missing heartbeats before it.
    #[must_use]
    pub fn around(ended: &Ended<'_>) -> Self {
        let record = ended.record;
        let silent = record.hb_wait_ms.max(record.hb_gap_ms).unwrap_or(0).min(SILENCE);
        let before = BEFORE.saturating_add(i64::try_from(silent).unwrap_or(0));
        Self { from_ms: ended.at_ms.saturating_sub(before), until_ms: ended.at_ms.saturating_add(AFTER) }
    }

    /// Whether the time is in the window.
    #[must_use]
    pub const fn holds(&self, at_ms: i64) -> bool {
        self.from_ms <= at_ms && at_ms <= self.until_ms
    }
}

/// A layer that can be queried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Traefik's access log.
    Traefik,
    /// cloudflared's log.
    Cloudflared,
    /// Cloudflare's `websocket_analytics`.
    Logpush,
    /// Envoy's access log.
    Envoy,
    /// HAProxy's log.
    Haproxy,
    /// Further streams of Loki.
    Streams,
    /// t3-probe's legs.
    Probe,
    /// Host PSI of node_exporter.
    Pressure,
}

impl Layer {
    /// All layers, in display order.
    pub const ALL: [Self; 8] = [
        Self::Traefik,
        Self::Cloudflared,
        Self::Logpush,
        Self::Envoy,
        Self::Haproxy,
        Self::Streams,
        Self::Probe,
        Self::Pressure,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traefik => "Traefik's access log",
            Self::Cloudflared => "cloudflared's log",
            Self::Logpush => "Cloudflare's websocket_analytics",
            Self::Envoy => "Envoy's access log",
            Self::Haproxy => "HAProxy's log",
            Self::Streams => "other streams of Loki",
            Self::Probe => "probe legs",
            Self::Pressure => "host PSI",
        }
    }

    /// Returns the evidence that it would add, and the options that enable it.
    #[must_use]
    pub const fn would_add(self) -> &'static str {
        match self {
            Self::Traefik => {
                "whether Traefik saw this session end as dispatch did, and how (--loki URL or --traefik-log FILE)"
            }
            Self::Cloudflared => {
                "whether a tunnel connection was lost at that moment (--loki URL or --cloudflared-log FILE)"
            }
            Self::Logpush => {
                "which side closed at Cloudflare's edge (--logpush PATH or --logpush-selector LOGQL)"
            }
            Self::Envoy => "which side closed at Envoy (--envoy-log FILE or --envoy-selector LOGQL)",
            Self::Haproxy => "which side closed at HAProxy (--haproxy-log FILE or --haproxy-selector LOGQL)",
            Self::Streams => "what else was logged around the close (--loki URL --loki-selector LOGQL)",
            Self::Probe => "whether the probe's WebSockets over the same path were up (--prometheus URL)",
            Self::Pressure => "host PSI before and after the close (--prometheus URL)",
        }
    }
}

/// Result of the query to a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryStatus {
    /// Not queried: no option enables it.
    No,
    /// Queried.
    Yes {
        /// Source without credentials: `Loki at http://loki:3100, {job="traefik"}`.
        from: String,
        /// Number of lines or samples in the window.
        found: usize,
        /// Limitation of the result as a clause, for example that it was cut.
        note: Option<String>,
    },
    /// The query failed; `why` has operation, cause and hint.
    Failed { why: String },
}

/// A layer and the result of its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub layer: Layer,
    pub status: QueryStatus,
}

/// One line of another stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherLine {
    /// Time in milliseconds since the epoch.
    pub at_ms: i64,
    /// Labels of its stream, `{job="devvm-journal", unit="ssh.service"}`; printable.
    pub stream: String,
    /// The line, printable, without query strings, cut to a limit.
    pub text: String,
}

/// PSI of one resource of one host in the window.
#[derive(Debug, Clone, PartialEq)]
pub struct Pressure {
    /// `cpu`, `memory` or `io`.
    pub resource: &'static str,
    /// Label `instance` of the host; printable.
    pub instance: String,
    /// Time in milliseconds since the epoch, and PSI some over the two minutes before it, in
    /// percent.
    pub points: Vec<(i64, f64)>,
}

/// Results of all queries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerData {
    /// Input of [`t3_record::edge::refine()`]. `neighbours` is empty: the caller knows the other
    /// closes.
    pub layers: Layers,
    pub pressure: Vec<Pressure>,
    /// Lines of other streams, sorted by time.
    pub lines: Vec<OtherLine>,
    /// One outcome per layer, in the order of [`Layer::ALL`].
    pub outcomes: Vec<Outcome>,
}

/// Queries all layers that `args` enables, in parallel; returns when each has answered or failed.
pub async fn gather(args: &LayerArgs, ended: &Ended<'_>, window: Window) -> LayerData {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let query = LayerQuery {
        args,
        ray: ended.record.ray.as_deref().map(ray_id),
        window,
        closed_ms: ended.at_ms,
        now_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        client: OnceCell::new(),
        loki: Source::loki(&args.server),
        prometheus: prometheus::source(args),
    };
    let (traefik, cloudflared, logpush, envoy, haproxy, streams, probe, pressure) = tokio::join!(
        query.traefik(),
        query.cloudflared(),
        query.logpush(),
        query.envoy(),
        query.haproxy(),
        query.streams(),
        query.probe(),
        query.pressure()
    );
    let statuses = [traefik.1, cloudflared.1, logpush.1, envoy.1, haproxy.1, streams.1, probe.1, pressure.1];
    LayerData {
        layers: Layers {
            traefik: traefik.0,
            cloudflared: cloudflared.0,
            logpush: logpush.0,
            envoy: envoy.0,
            haproxy: haproxy.0,
            probe: probe.0,
            neighbours: Vec::new(),
        },
        pressure: pressure.0.unwrap_or_default(),
        lines: streams.0.unwrap_or_default(),
        outcomes: Layer::ALL
            .into_iter()
            .zip(statuses)
            .map(|(layer, status)| Outcome { layer, status })
            .collect(),
    }
}

/// As [`gather`], for a caller without a runtime.
///
/// # Errors
/// The runtime cannot be started.
pub fn gather_blocking(args: &LayerArgs, ended: &Ended<'_>, window: Window) -> std::io::Result<LayerData> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let gathered = runtime.block_on(gather(args, ended, window));
    // A DNS lookup of the system blocks a thread and cannot be cancelled.
    runtime.shutdown_background();
    Ok(gathered)
}

#[cfg(test)]
mod tests;
