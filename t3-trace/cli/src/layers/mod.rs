//! What the other layers say around one close: fetched from Loki, Prometheus and files, read by the
//! parsers of `t3_record::edge`, handed over as values. Concludes nothing (that is
//! `t3_record::edge::refine`), and never fails as a whole: each layer says for itself whether it
//! was asked and what came of it.
//!
//! Only `t3-trace explain` runs this, as the operator who calls it. What comes from the network is
//! hostile: bounded, parsed here, and made printable. The privileged daemon parses nothing from the
//! network and must never call anything of this module.

pub mod args;
mod ask;
mod files;
mod http;
mod legs;
mod loki;
mod prometheus;
mod source;

use std::time::SystemTime;

use t3_record::edge::{Ended, Layers};

use self::{ask::LayerQuery, http::Client, source::Source};
pub use args::LayerArgs;

/// Looked at before the close, in milliseconds; a scrape or two of Prometheus, and what a tunnel
/// logs before it gives up.
const BEFORE: i64 = 60_000;
/// Looked at after the close, in milliseconds: lines are written late, and a tunnel says when it is
/// back.
const AFTER: i64 = 60_000;
/// Silence before a close lengthens the window by no more than this, in milliseconds.
const SILENCE: u64 = 300_000;

/// The time around a close that the layers are asked for, in milliseconds since the epoch, both
/// ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from_ms: i64,
    /// Its end.
    pub until_ms: i64,
}

impl Window {
    /// A minute each way, and before it also the time in which the browser heard or said nothing.
    #[must_use]
    pub fn around(ended: &Ended<'_>) -> Self {
        let record = ended.record;
        let silent = record.hb_wait_ms.max(record.hb_gap_ms).unwrap_or(0).min(SILENCE);
        let before = BEFORE.saturating_add(i64::try_from(silent).unwrap_or(0));
        Self { from_ms: ended.at_ms.saturating_sub(before), until_ms: ended.at_ms.saturating_add(AFTER) }
    }

    /// The moment lies in it.
    #[must_use]
    pub const fn holds(&self, at_ms: i64) -> bool {
        self.from_ms <= at_ms && at_ms <= self.until_ms
    }
}

/// A layer that can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Traefik's access log.
    Traefik,
    /// cloudflared's log.
    Cloudflared,
    /// Further streams of Loki.
    Streams,
    /// t3-probe's legs.
    Probe,
    /// The pressure of the host, as node_exporter saw it.
    Pressure,
}

impl Layer {
    /// Each of them, in the order in which they are told.
    pub const ALL: [Self; 5] = [Self::Traefik, Self::Cloudflared, Self::Streams, Self::Probe, Self::Pressure];

    /// Its name for the operator.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traefik => "Traefik's access log",
            Self::Cloudflared => "cloudflared's log",
            Self::Streams => "other streams of Loki",
            Self::Probe => "probe legs",
            Self::Pressure => "host PSI",
        }
    }

    /// What it would add, and how to have it asked.
    #[must_use]
    pub const fn would_add(self) -> &'static str {
        match self {
            Self::Traefik => {
                "whether Traefik saw this session end as dispatch did, and how (--loki URL or --traefik-log FILE)"
            }
            Self::Cloudflared => {
                "whether a tunnel connection was lost at that moment (--loki URL or --cloudflared-log FILE)"
            }
            Self::Streams => "what else was logged around the close (--loki URL --loki-selector LOGQL)",
            Self::Probe => "whether the probe's WebSockets over the same path were up (--prometheus URL)",
            Self::Pressure => "host PSI before and after the close (--prometheus URL)",
        }
    }
}

/// What came of asking a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryStatus {
    /// It was not asked: no option names it.
    No,
    /// It answered.
    Yes {
        /// Where the answer came from, without credentials:
        /// `Loki at http://loki:3100, {job="traefik"}`.
        from: String,
        /// Lines or samples within the window.
        found: usize,
        /// What lessens the answer, in a sentence; for example that it was cut.
        note: Option<String>,
    },
    /// It was asked in vain.
    Failed {
        /// Why, in a sentence: what was attempted, on what, what to do.
        why: String,
    },
}

/// A layer and what came of asking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub layer: Layer,
    /// What came of it.
    pub asked: QueryStatus,
}

/// One line of another stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherLine {
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Its stream's labels, `{job="devvm-journal", unit="ssh.service"}`; printable.
    pub stream: String,
    /// The line, printable, without query strings, cut if it is very long.
    pub text: String,
}

/// One kind of pressure on one host over the window.
#[derive(Debug, Clone, PartialEq)]
pub struct Pressure {
    /// `cpu`, `memory` or `io`.
    pub resource: &'static str,
    /// The host, as the label `instance` names it; printable.
    pub instance: String,
    /// Milliseconds since the epoch, and percent of the two minutes before it in which some task
    /// waited.
    pub points: Vec<(i64, f64)>,
}

/// What was gathered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerData {
    /// For [`t3_record::edge::refine()`]. `neighbours` is left empty: the caller knows the other
    /// closes.
    pub layers: Layers,
    /// The host's pressure.
    pub pressure: Vec<Pressure>,
    /// Lines of other streams, in the order of time.
    pub lines: Vec<OtherLine>,
    /// Each layer of [`Layer::ALL`], in that order.
    pub outcomes: Vec<Outcome>,
}

/// Asks every layer that `args` names, side by side, and waits until each has answered or failed.
pub async fn gather(args: &LayerArgs, ended: &Ended<'_>, window: Window) -> LayerData {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let asker = LayerQuery {
        args,
        window,
        closed_ms: ended.at_ms,
        now_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        client: Client::new(args.layer_ca.as_ref()),
        loki: Source::loki(args),
        prometheus: Source::prometheus(args),
    };
    let (traefik, cloudflared, streams, probe, pressure) =
        tokio::join!(asker.traefik(), asker.cloudflared(), asker.streams(), asker.probe(), asker.pressure());
    let asked = [traefik.1, cloudflared.1, streams.1, probe.1, pressure.1];
    LayerData {
        layers: Layers {
            traefik: traefik.0,
            cloudflared: cloudflared.0,
            probe: probe.0,
            neighbours: Vec::new(),
        },
        pressure: pressure.0.unwrap_or_default(),
        lines: streams.0.unwrap_or_default(),
        outcomes: Layer::ALL.into_iter().zip(asked).map(|(layer, asked)| Outcome { layer, asked }).collect(),
    }
}

/// As [`gather`], for a caller without a runtime.
///
/// # Errors
/// The runtime cannot be started.
pub fn gather_blocking(args: &LayerArgs, ended: &Ended<'_>, window: Window) -> std::io::Result<LayerData> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let gathered = runtime.block_on(gather(args, ended, window));
    // The system's look-up of a name cannot be stopped, only left alone.
    runtime.shutdown_background();
    Ok(gathered)
}

#[cfg(test)]
mod tests;
