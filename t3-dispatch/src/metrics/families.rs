//! Families of metrics with closed labels: every series is made at the start, and counting one is
//! an addition to an atomic, without a look-up.

use std::marker::PhantomData;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

use super::labels::Label;

/// What all names begin with.
pub const PREFIX: &str = "t3_dispatch";

/// Makes metrics and registers them.
#[derive(Debug, Default)]
pub struct MetricBuilder {
    /// Where they are registered.
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
    /// One of them.
    #[must_use]
    pub fn of(&self, label: W) -> &IntCounter {
        &self.0[label.index()]
    }
}

impl<A: Label, B: Label> CounterVec2<A, B> {
    /// One of them.
    #[must_use]
    pub fn of(&self, a: A, b: B) -> &IntCounter {
        &self.0[a.index() * B::ALL.len() + b.index()]
    }
}

impl<W: Label> GaugeVec<W> {
    /// One of them.
    #[must_use]
    pub fn of(&self, label: W) -> &IntGauge {
        &self.0[label.index()]
    }
}

/// Brings a counter up to a count that is kept elsewhere.
pub fn catch_up(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}

impl MetricBuilder {
    /// A counter.
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

    /// A gauge.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(opts(name, help)))
    }

    /// A floating-point gauge.
    pub fn float_gauge(&self, name: &str, help: &str) -> prometheus::Gauge {
        self.register(prometheus::Gauge::with_opts(opts(name, help)))
    }

    /// Gauges by one label.
    pub fn gauge_vec<W: Label>(&self, name: &str, help: &str) -> GaugeVec<W> {
        let family = self.register(IntGaugeVec::new(opts(name, help), &[W::NAME]));
        GaugeVec(W::ALL.iter().map(|label| family.with_label_values(&[label.value()])).collect(), PhantomData)
    }

    /// A histogram of times in seconds.
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        let opts = HistogramOpts { common_opts: opts(name, help), buckets: bounds.to_vec() };
        self.register(Histogram::with_opts(opts))
    }

    /// A gauge that is always 1 and has a label with `value`.
    pub fn info(&self, name: &str, help: &str, label: &str, value: &str) {
        self.register(IntGauge::with_opts(opts(name, help).const_label(label, value))).set(1);
    }

    #[expect(
        clippy::expect_used,
        reason = "names, labels and bounds are constants, and every test makes them all"
    )]
    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let made = made.expect("a name, label or bound is not allowed");
        self.registry.register(Box::new(made.clone())).expect("a name is registered once");
        made
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}
