//! State that all sessions share to write their records.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use t3_record::{
    BurstRecord, CloseRecord, Evidence,
    evidence::{Burst, Nanos, RelayFacts},
};

use crate::{
    evidence::{client::EvidenceClient, loop_lag::LoopLag},
    metrics::{Metrics, labels::AttemptEnd},
    record::{
        attempts::{Attempts, Unfinished},
        burst::{self, BurstCounter},
        reconnects::Reconnects,
        serve_versions::ServeVersions,
    },
    relay::{heartbeat::SessionTiming, session::Session},
    shutdown::{in_flight::InFlight, signal::ShutdownSignal},
    sys::clock,
};

/// Interval of the summaries of attempts.
const ATTEMPTS_EVERY: Duration = Duration::from_secs(60);

/// Called with each session and its record, for tests.
pub type RecordObserver = Box<dyn Fn(&Session, &Evidence, &CloseRecord) + Send + Sync>;

/// Shared state for writing records.
pub struct Recorder {
    /// Writer of records.
    pub writer: t3_journal::Writer,
    /// Client of t3-trace's evidence socket.
    pub evidence: EvidenceClient,
    pub metrics: Arc<Metrics>,
    /// Delays of this process's event loop.
    pub lag: Arc<LoopLag>,
    pub reconnects: Mutex<Reconnects>,
    /// Cuts of the last seconds.
    pub bursts: Mutex<BurstCounter>,
    /// Connections of this minute that ended before a request was read.
    pub attempts: Mutex<Attempts>,
    /// Sessions without a record.
    pub in_flight: InFlight,
    /// Versions that serves have reported.
    pub versions: Arc<ServeVersions>,
    pub shutdown: Arc<ShutdownSignal>,
    /// Runs the writers, also for sessions dropped outside the runtime.
    pub runtime: tokio::runtime::Handle,
    pub observer: Option<RecordObserver>,
}

impl Recorder {
    /// Adds the delays of this process's event loop, and the pauses of the host so far.
    pub(super) fn add_lag(&self, facts: &mut RelayFacts, timing: SessionTiming) {
        if let Some(delay) = self.lag.worst() {
            facts.self_lag_ms = Some(delay.late / 1_000_000);
            facts.self_lag_at = Some(delay.at);
        }
        facts.delays = self.lag.delays();
        facts.pauses = self.lag.pauses(timing);
    }

    /// Writes the summary of a burst that is complete at `now`.
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

    /// Counts a connection that ended before a request was read, if it tells of an attempt.
    pub fn unfinished(&self, connection: &Unfinished, end: AttemptEnd) {
        let Some(kind) = connection.kind() else { return };
        self.metrics.attempt(kind, end);
        let lag = self.lag.worst().map(|delay| delay.late);
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).add(kind, connection.life(), lag);
    }

    /// Writes the summary of the attempts since the last one, if there are any.
    pub fn write_attempts(&self) {
        let summary = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).sum_up();
        if let Some(summary) = summary {
            drop(self.writer.write(summary.to_fields()));
        }
    }

    /// Writes summaries of attempts once a minute.
    pub async fn write_attempts_regularly(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(ATTEMPTS_EVERY);
        loop {
            ticks.tick().await;
            self.write_attempts();
        }
    }

    /// Forgets sessions that ended too long ago, and returns the memory of tables that were larger.
    pub fn shrink(&self) {
        self.reconnects.lock().unwrap_or_else(PoisonError::into_inner).shrink(clock::now());
        self.evidence.shrink();
        self.shutdown.shrink();
    }

    /// Returns the burst that this close belongs to. A candidate waits for other cuts of the same
    /// second.
    pub(super) async fn burst_around(&self, session: &Session) -> Option<Burst> {
        if !burst::candidate(&session.facts) {
            return None;
        }
        let at: Nanos = session.facts.ended_at;
        self.bursts().cuts.cut(at, &session.identity.user);
        // Fewer sessions than the minimum of a burst: waiting has no effect.
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
