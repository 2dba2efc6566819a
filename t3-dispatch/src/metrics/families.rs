//! Metric families with closed label sets: every series exists from the start, and counting is an
//! atomic addition without a lookup.

use std::marker::PhantomData;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};
use t3_process_metrics::ProcessMetrics;

use super::labels::Label;

/// Prefix of all metric names except those of the process.
pub const PREFIX: &str = "t3_dispatch";

/// Creates and registers metrics.
#[derive(Debug, Default)]
pub struct MetricBuilder {
    pub registry: Registry,
}

/// CounterVec by one label.
#[derive(Debug)]
pub struct CounterVec<W>(Vec<IntCounter>, PhantomData<fn(W)>);

/// CounterVec by two labels.
#[derive(Debug)]
pub struct CounterVec2<A, B>(Vec<IntCounter>, PhantomData<fn(A, B)>);

/// Gauges by one label.
#[derive(Debug)]
pub struct GaugeVec<W>(Vec<IntGauge>, PhantomData<fn(W)>);

impl<W: Label> CounterVec<W> {
    #[must_use]
    pub fn of(&self, label: W) -> &IntCounter {
        &self.0[label.index()]
    }
}

impl<A: Label, B: Label> CounterVec2<A, B> {
    #[must_use]
    pub fn of(&self, a: A, b: B) -> &IntCounter {
        &self.0[a.index() * B::ALL.len() + b.index()]
    }
}

impl<W: Label> GaugeVec<W> {
    #[must_use]
    pub fn of(&self, label: W) -> &IntGauge {
        &self.0[label.index()]
    }
}

/// Raises a counter to a count that another component keeps.
pub fn catch_up(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}

/// Sets a counter to a count that another process keeps; a restart of that process resets it.
pub fn follow(counter: &IntCounter, count: u64) {
    if count < counter.get() {
        counter.reset();
    }
    catch_up(counter, count);
}

impl MetricBuilder {
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(opts(name, help)))
    }

    /// CounterVec by one label.
    pub fn counter_vec<W: Label>(&self, name: &str, help: &str) -> CounterVec<W> {
        let family = self.register(IntCounterVec::new(opts(name, help), &[W::NAME]));
        CounterVec(
            W::ALL.iter().map(|label| family.with_label_values(&[label.value()])).collect(),
            PhantomData,
        )
    }

    /// CounterVec by two labels.
    pub fn counter_vec2<A: Label, B: Label>(&self, name: &str, help: &str) -> CounterVec2<A, B> {
        let family = self.register(IntCounterVec::new(opts(name, help), &[A::NAME, B::NAME]));
        let pairs = A::ALL.iter().flat_map(|a| B::ALL.iter().map(move |b| [a.value(), b.value()]));
        CounterVec2(pairs.map(|pair| family.with_label_values(&pair)).collect(), PhantomData)
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(opts(name, help)))
    }

    pub fn float_gauge(&self, name: &str, help: &str) -> prometheus::Gauge {
        self.register(prometheus::Gauge::with_opts(opts(name, help)))
    }

    pub fn gauge_vec<W: Label>(&self, name: &str, help: &str) -> GaugeVec<W> {
        let family = self.register(IntGaugeVec::new(opts(name, help), &[W::NAME]));
        GaugeVec(W::ALL.iter().map(|label| family.with_label_values(&[label.value()])).collect(), PhantomData)
    }

    /// Returns a histogram of times in seconds.
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        let opts = HistogramOpts { common_opts: opts(name, help), buckets: bounds.to_vec() };
        self.register(Histogram::with_opts(opts))
    }

    /// Registers a gauge that is always 1, with a constant label.
    pub fn info(&self, name: &str, help: &str, label: &str, value: &str) {
        self.register(IntGauge::with_opts(opts(name, help).const_label(label, value))).set(1);
    }

    /// Registers the metrics of this process, with their standard names and without the prefix.
    pub fn process(&self) {
        self.register(ProcessMetrics::new());
    }

    #[expect(
        clippy::expect_used,
        reason = "names, labels and bounds are constants, and every test registers all of them"
    )]
    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let made = made.expect("invalid name, label or bound");
        self.registry.register(Box::new(made.clone())).expect("duplicate metric name");
        made
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}
