//! State that all sessions share to write their records.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use t3_record::{
    BurstRecord, CloseRecord, Evidence,
    evidence::{Burst, Nanos},
};

use crate::{
    evidence::{client::Trace, loop_lag},
    metrics::Metrics,
    record::{
        burst::{self, BurstCounter},
        reconnects::Reconnects,
    },
    relay::session::Session,
    shutdown::{in_flight::InFlight, signal::ShutdownSignal},
    sys::clock,
};

/// Called with each session and its record, for tests.
pub type RecordObserver = Box<dyn Fn(&Session, &Evidence, &CloseRecord) + Send + Sync>;

/// Everything that a session needs to write its record. Shared by all sessions.
pub struct Recorder {
    /// Writer of records.
    pub writer: t3_journal::Writer,
    /// Client of t3-trace's evidence socket.
    pub evidence: Trace,
    pub metrics: Arc<Metrics>,
    /// Delays of this process's event loop.
    pub lag: Arc<loop_lag::Meter>,
    pub reconnects: Mutex<Reconnects>,
    /// Ends of the last seconds.
    pub bursts: Mutex<BurstCounter>,
    /// Sessions without a record.
    pub in_flight: InFlight,
    pub shutdown: Arc<ShutdownSignal>,
    /// Runs the end of sessions, even those dropped outside the runtime.
    pub runtime: tokio::runtime::Handle,
    pub observer: Option<RecordObserver>,
}

impl Recorder {
    /// Writes summaries of the bursts that are complete at `now`.
    pub fn write_burst(&self, now: Nanos) {
        let summary: Option<BurstRecord> = self.bursts().cuts.sum_up(now);
        if let Some(summary) = summary {
            drop(self.writer.write(summary.to_fields()));
        }
    }

    /// Writes burst summaries twice a second.
    pub async fn write_bursts(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            self.write_burst(clock::now());
        }
    }

    /// The burst that this session's end belongs to. Waits for other ends of the same second when
    /// this one can be part of a burst.
    pub(super) async fn burst_around(&self, session: &Session) -> Option<Burst> {
        if !burst::candidate(&session.facts) {
            return None;
        }
        let at: Nanos = session.facts.ended_at;
        self.bursts().cuts.cut(at, &session.who.user);
        // With fewer sessions than a burst has, waiting is pointless.
        if self.in_flight.count() < t3_record::burst::LEAST as usize {
            return None;
        }
        tokio::time::sleep(burst::WAIT).await;
        self.bursts().around(at, clock::now())
    }

    fn bursts(&self) -> std::sync::MutexGuard<'_, BurstCounter> {
        self.bursts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
