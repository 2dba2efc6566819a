//! Families of metrics with closed labels: every series is made at the start, and counting one is
//! an addition to an atomic, without a look-up.

use std::marker::PhantomData;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

use super::labels::Word;

/// What all names begin with.
pub const PREFIX: &str = "t3_dispatch";

/// Makes metrics and registers them.
#[derive(Debug, Default)]
pub struct Maker {
    /// Where they are registered.
    pub registry: Registry,
}

/// Counters by one label.
#[derive(Debug)]
pub struct Counters<W>(Vec<IntCounter>, PhantomData<fn(W)>);

/// Counters by two labels.
#[derive(Debug)]
pub struct Counters2<A, B>(Vec<IntCounter>, PhantomData<fn(A, B)>);

/// Gauges by one label.
#[derive(Debug)]
pub struct GaugeVec<W>(Vec<IntGauge>, PhantomData<fn(W)>);

impl<W: Word> Counters<W> {
    /// One of them.
    #[must_use]
    pub fn of(&self, word: W) -> &IntCounter {
        &self.0[word.index()]
    }
}

impl<A: Word, B: Word> Counters2<A, B> {
    /// One of them.
    #[must_use]
    pub fn of(&self, a: A, b: B) -> &IntCounter {
        &self.0[a.index() * B::ALL.len() + b.index()]
    }
}

impl<W: Word> GaugeVec<W> {
    /// One of them.
    #[must_use]
    pub fn of(&self, word: W) -> &IntGauge {
        &self.0[word.index()]
    }
}

/// Brings a counter up to a count that is kept elsewhere.
pub fn follow(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}

impl Maker {
    /// A counter.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::with_opts(opts(name, help)))
    }

    /// Counters by one label.
    pub fn counters<W: Word>(&self, name: &str, help: &str) -> Counters<W> {
        let family = self.keep(IntCounterVec::new(opts(name, help), &[W::LABEL]));
        Counters(W::ALL.iter().map(|word| family.with_label_values(&[word.word()])).collect(), PhantomData)
    }

    /// Counters by two labels.
    pub fn counters2<A: Word, B: Word>(&self, name: &str, help: &str) -> Counters2<A, B> {
        let family = self.keep(IntCounterVec::new(opts(name, help), &[A::LABEL, B::LABEL]));
        let pairs = A::ALL.iter().flat_map(|a| B::ALL.iter().map(move |b| [a.word(), b.word()]));
        Counters2(pairs.map(|pair| family.with_label_values(&pair)).collect(), PhantomData)
    }

    /// A gauge.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::with_opts(opts(name, help)))
    }

    /// A floating-point gauge.
    pub fn real(&self, name: &str, help: &str) -> prometheus::Gauge {
        self.keep(prometheus::Gauge::with_opts(opts(name, help)))
    }

    /// Gauges by one label.
    pub fn gauges<W: Word>(&self, name: &str, help: &str) -> GaugeVec<W> {
        let family = self.keep(IntGaugeVec::new(opts(name, help), &[W::LABEL]));
        GaugeVec(W::ALL.iter().map(|word| family.with_label_values(&[word.word()])).collect(), PhantomData)
    }

    /// A histogram of times in seconds.
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        let opts = HistogramOpts { common_opts: opts(name, help), buckets: bounds.to_vec() };
        self.keep(Histogram::with_opts(opts))
    }

    /// A gauge that is always 1 and has a label with `value`.
    pub fn info(&self, name: &str, help: &str, label: &str, value: &str) {
        self.keep(IntGauge::with_opts(opts(name, help).const_label(label, value))).set(1);
    }

    #[expect(
        clippy::expect_used,
        reason = "names, labels and bounds are constants, and every test makes them all"
    )]
    fn keep<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let made = made.expect("a name, label or bound is not allowed");
        self.registry.register(Box::new(made.clone())).expect("a name is registered once");
        made
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}
