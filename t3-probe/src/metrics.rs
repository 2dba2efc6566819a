//! Metrics, with the names, labels and buckets that dashboards and alerts already use.

use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder,
};
use t3_process_metrics::ProcessMetrics;
use t3_record::probe::Reason;

const RTT: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];
const AGE: [f64; 8] = [10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0];

/// All metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    connected: GaugeVec,
    disconnects: CounterVec,
    rtt: HistogramVec,
    age: HistogramVec,
    last_disconnect: GaugeVec,
}

impl Metrics {
    /// Creates the metrics in a separate registry.
    ///
    /// # Errors
    /// Never with these names; the library checks them.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let leg = &["leg"];
        let connected = GaugeVec::new(Opts::new("t3probe_connected", "1 while the leg is up, by leg."), leg)?;
        let disconnects = CounterVec::new(
            Opts::new("t3probe_disconnects_total", "Disconnects and failed attempts by leg and reason."),
            &["leg", "reason"],
        )?;
        let rtt = HistogramVec::new(
            HistogramOpts::new(
                "t3probe_rtt_seconds",
                "Time to the WebSocket echo or HTTP response by leg, in seconds.",
            )
            .buckets(RTT.to_vec()),
            leg,
        )?;
        let age = HistogramVec::new(
            HistogramOpts::new(
                "t3probe_connection_age_seconds",
                "Age of a WebSocket at its disconnect by leg, in seconds.",
            )
            .buckets(AGE.to_vec()),
            leg,
        )?;
        let last_disconnect = GaugeVec::new(
            Opts::new(
                "t3probe_last_disconnect_timestamp",
                "Unix time of the last disconnect by leg, in seconds; 0 before the first.",
            ),
            leg,
        )?;
        let build_info = Gauge::with_opts(
            Opts::new("t3probe_build_info", "Always 1; the label is the running version.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build_info.set(1.0);
        registry.register(Box::new(build_info))?;
        registry.register(Box::new(ProcessMetrics::new()?))?;
        registry.register(Box::new(connected.clone()))?;
        registry.register(Box::new(disconnects.clone()))?;
        registry.register(Box::new(rtt.clone()))?;
        registry.register(Box::new(age.clone()))?;
        registry.register(Box::new(last_disconnect.clone()))?;
        Ok(Self { registry, connected, disconnects, rtt, age, last_disconnect })
    }

    /// Creates every series of a leg, so that its first disconnect is an increase.
    pub fn add_leg(&self, leg: &str) {
        self.connected(leg, false);
        self.last_disconnect.with_label_values(&[leg]).set(0.0);
        for reason in Reason::expected() {
            let _ = self.disconnects.with_label_values(&[leg, &reason.to_string()]);
        }
        for histogram in [&self.rtt, &self.age] {
            let _ = histogram.with_label_values(&[leg]);
        }
    }

    /// Sets whether the leg is up.
    pub fn connected(&self, leg: &str, up: bool) {
        self.connected.with_label_values(&[leg]).set(if up { 1.0 } else { 0.0 });
    }

    /// Records the time to an echo or response, in seconds.
    pub fn rtt(&self, leg: &str, seconds: f64) {
        self.rtt.with_label_values(&[leg]).observe(seconds);
    }

    /// Records a disconnect at this Unix time in seconds; `age` is the age of an established leg.
    pub fn disconnected(&self, leg: &str, reason: Reason, unix: f64, age: Option<f64>) {
        self.connected(leg, false);
        self.disconnects.with_label_values(&[leg, &reason.to_string()]).inc();
        self.last_disconnect.with_label_values(&[leg]).set(unix);
        if let Some(age) = age {
            self.age.with_label_values(&[leg]).observe(age);
        }
    }

    /// Exposition in the Prometheus text format 0.0.4.
    ///
    /// # Errors
    /// Never with metrics that were registered; the library checks them.
    pub fn page(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_of_a_leg_exists_before_its_first_event() {
        let metrics = Metrics::new().unwrap();
        metrics.add_leg("cloudflare");
        metrics.add_leg("t3serve:ann");
        let page = String::from_utf8(metrics.page().unwrap()).unwrap();
        let has = |line: &str| assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        for leg in ["cloudflare", "t3serve:ann"] {
            has(&format!("t3probe_connected{{leg=\"{leg}\"}} 0"));
            has(&format!("t3probe_last_disconnect_timestamp{{leg=\"{leg}\"}} 0"));
            for histogram in ["t3probe_rtt_seconds", "t3probe_connection_age_seconds"] {
                has(&format!("{histogram}_bucket{{leg=\"{leg}\",le=\"+Inf\"}} 0"));
                has(&format!("{histogram}_count{{leg=\"{leg}\"}} 0"));
            }
            for reason in ["connect_failed", "rtt_timeout", "pong_timeout", "closed_close", "http_502"] {
                has(&format!("t3probe_disconnects_total{{leg=\"{leg}\",reason=\"{reason}\"}} 0"));
            }
        }
        let counters = page.lines().filter(|line| line.starts_with("t3probe_disconnects_total{")).count();
        assert_eq!(counters, 2 * Reason::expected().count());
        has(&format!("t3probe_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
    }
}
