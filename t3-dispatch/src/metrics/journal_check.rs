//! Records that t3-trace has compared with the journal: on the page only while t3-trace is
//! connected and has reported them, because a zero would say that all records are in the journal.

use prometheus::{IntCounter, IntGauge, proto::MetricFamily};
use t3_record::wire::JournalState;

use super::families::{MetricBuilder, follow};

/// The families, in a registry of their own.
#[derive(Debug)]
pub(super) struct JournalCheck {
    builder: MetricBuilder,
    missing: IntCounter,
    rewritten: IntCounter,
    lost: IntCounter,
    unverified: IntGauge,
}

impl Default for JournalCheck {
    fn default() -> Self {
        let builder = MetricBuilder::default();
        Self {
            missing: builder.counter(
                "records_missing_total",
                "Records that journald accepted and t3-trace did not find in the journal; counted by t3-trace since its start, absent while it is not connected.",
            ),
            rewritten: builder.counter(
                "records_rewritten_total",
                "Records that t3-trace wrote in place of missing ones; counted by t3-trace since its start, absent while it is not connected.",
            ),
            lost: builder.counter(
                "records_lost_total",
                "Records that nothing could keep: the journal and the spool of t3-trace were full; counted by t3-trace since its start, absent while it is not connected.",
            ),
            unverified: builder.gauge(
                "records_unverified",
                "Records that t3-trace has not yet found in the journal; absent while it is not connected.",
            ),
            builder,
        }
    }
}

impl JournalCheck {
    /// Returns the families with the values of `state`.
    pub(super) fn gather(&self, state: JournalState) -> Vec<MetricFamily> {
        follow(&self.missing, state.missing);
        follow(&self.rewritten, state.rewritten);
        follow(&self.lost, state.lost);
        self.unverified.set(i64::try_from(state.waiting).unwrap_or(i64::MAX));
        self.builder.registry.gather()
    }
}
