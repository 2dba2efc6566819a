//! Writes the one `ws close` record of a session: collects evidence, judges, writes.
//!
//! A [`SessionRecorder`] exists for every upgrade that is forwarded to serve and writes the record
//! when it is dropped: after a clean relay, and also when a task panics, is cancelled, or the
//! client disconnects before the 101. Nothing else writes `ws close` records.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use t3_record::{
    CloseRecord, Evidence, KernelSource, OpenRecord, Side, assemble,
    evidence::{Nanos, OpenFailure, OwnEnd, SeenEnd},
};

use crate::{
    http::guard::Exchanges,
    record::{
        early_evidence::{self, EarlyAnswer, EarlyEvidence},
        not_resumed::TRACE_WAIT,
        recorder::Recorder,
    },
    relay::{self, session::Session},
    sys::clock,
};

/// Owns a session until its record is written, also when it is dropped early.
pub struct SessionRecorder {
    recorder: Arc<Recorder>,
    session: Option<Box<Session>>,
    /// The client's connection up to the 101.
    connection: Option<Arc<Exchanges>>,
    early: Arc<Mutex<Option<EarlyEvidence>>>,
}

impl SessionRecorder {
    /// Starts the record of an upgrade that arrived on `connection`.
    #[must_use]
    pub fn open(recorder: &Arc<Recorder>, session: Session, connection: Option<Arc<Exchanges>>) -> Self {
        recorder.in_flight.opened();
        recorder.metrics.upgrade_forwarded();
        Self {
            recorder: Arc::clone(recorder),
            session: Some(Box::new(session)),
            connection,
            early: Arc::default(),
        }
    }

    /// # Panics
    /// Never: only `drop` takes the session out.
    #[expect(clippy::expect_used, reason = "the session is taken by drop alone")]
    pub fn session(&mut self) -> &mut Session {
        self.session.as_deref_mut().expect("a recorder holds its session until it is dropped")
    }

    /// Records that the WebSocket opens: registers it with t3-trace and writes `ws open`. Called
    /// before the 101 is relayed; if that fails, [`Self::failed`] follows.
    pub fn opened(&mut self, extensions: Option<String>) {
        let now = clock::now();
        let recorder = Arc::clone(&self.recorder);
        let session = self.session();
        session.opened(now, extensions);
        let identity = &session.identity;
        recorder.evidence.register(identity, &session.live_stats);
        let mut record = OpenRecord::new(identity.user.clone(), identity.ip.clone(), identity.conn.clone());
        record.ray.clone_from(&identity.ray);
        record.kept = identity.kept.then_some(true);
        let previous = recorder.reconnects.lock().unwrap_or_else(PoisonError::into_inner).opened(
            &identity.user,
            &identity.ip,
            now,
        );
        let gap = previous.as_ref().map(|(_, gap)| *gap);
        record.prev = previous.map(|(prev, _)| prev);
        record.gap_ms = gap.map(|gap| gap / 1_000_000);
        recorder.metrics.opened(gap.map(Duration::from_nanos));
        // Not awaited: the writer counts dropped records.
        drop(recorder.writer.write(record.to_fields()));
        recorder.evidence.opened(record);
    }

    /// Continues a session of the process before.
    #[must_use]
    pub fn resume(recorder: &Arc<Recorder>, session: Session) -> Self {
        recorder.in_flight.opened();
        recorder.metrics.resumed();
        let (identity, at) = (&session.identity, clock::now());
        let mut reconnects = recorder.reconnects.lock().unwrap_or_else(PoisonError::into_inner);
        reconnects.opened(&identity.user, &identity.ip, at);
        drop(reconnects);
        recorder.evidence.register(identity, &session.live_stats);
        Self {
            recorder: Arc::clone(recorder),
            session: Some(Box::new(session)),
            connection: None,
            early: Arc::default(),
        }
    }

    /// Leaves the session to the next process, without a record.
    pub fn leave(mut self) {
        self.session = None;
        self.recorder.in_flight.closed();
    }

    /// Registers the session again: the next process cannot continue it.
    pub fn not_kept(&mut self) {
        let recorder = Arc::clone(&self.recorder);
        let session = self.session();
        session.identity.kept = false;
        recorder.evidence.register(&session.identity, &session.live_stats);
    }

    /// The observer of this session's relay.
    #[must_use]
    pub fn observer(&self) -> SessionObserver {
        SessionObserver { recorder: Arc::clone(&self.recorder), early: Arc::clone(&self.early) }
    }

    /// Records a failed open, also of a WebSocket whose 101 did not reach the client.
    pub fn failed(mut self, why: OpenFailure) {
        let now = clock::now();
        let facts = &mut self.session().facts;
        facts.open_failure = Some(why);
        if why == OpenFailure::ClientGone {
            self.set_client_end();
        }
        let facts = &mut self.session().facts;
        let up = match why {
            OpenFailure::Refused => Some(SeenEnd::Refused),
            OpenFailure::Unreach => Some(SeenEnd::Unreach),
            OpenFailure::HandshakeEof => Some(SeenEnd::Eof),
            OpenFailure::HandshakeReset => Some(SeenEnd::Reset),
            _ => None,
        };
        facts.up.end = up.map(|end| (end, now));
        self.set_upstream_fin(now);
        let recorder = Arc::clone(&self.recorder);
        first_end(&recorder, self.session(), now);
    }

    /// Releases the client's HTTP connection: it has become the downstream leg.
    pub fn upgraded(&mut self) {
        self.connection = None;
    }

    /// Records the end of the client's connection, or the shutdown that closed it.
    fn set_client_end(&mut self) {
        let end = self.connection.as_ref().and_then(|connection| connection.end());
        let shutdown = self.recorder.shutdown.triggered();
        let facts = &mut self.session().facts;
        facts.down.end = facts.down.end.or(end);
        facts.shutdown = facts.shutdown.or(shutdown);
    }

    /// Records that dispatch ended the upstream leg of a failed open, unless serve did.
    fn set_upstream_fin(&mut self, now: Nanos) {
        let session = self.session();
        let serve_responded = matches!(session.facts.open_failure, Some(OpenFailure::Status(_)));
        if session.identity.up.is_some() && session.facts.up.end.is_none() && !serve_responded {
            session.set_own_end(Side::Up, OwnEnd::Fin, now);
        }
    }
}

/// Observer of one session's relay.
pub struct SessionObserver {
    recorder: Arc<Recorder>,
    early: Arc<Mutex<Option<EarlyEvidence>>>,
}

impl SessionObserver {
    /// Reports the facts of the relay to t3-trace: if dispatch dies before it has written the
    /// record, they are the only evidence of a Close frame.
    fn report(&self, session: &Session) {
        self.recorder.evidence.ending(&session.identity.conn, || {
            let mut facts = session.facts_so_far();
            self.recorder.add_lag(&mut facts, session.timing());
            facts
        });
    }
}

impl relay::RelayObserver for SessionObserver {
    /// A reconnect must find its predecessor, and some evidence must be read now.
    fn end_started(&self, session: &Session) {
        self.recorder.metrics.ended(true);
        let identity = &session.identity;
        let mut reconnects = self.recorder.reconnects.lock().unwrap_or_else(PoisonError::into_inner);
        let at = session.end_started_at().unwrap_or_else(clock::now);
        reconnects.ended(&identity.user, &identity.ip, &identity.conn, at);
        drop(reconnects);
        self.report(session);
        let query = EarlyEvidence::start(self.recorder.evidence.clone(), identity.conn.clone());
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) = Some(query);
    }

    fn leg_ended(&self, session: &Session) {
        self.report(session);
    }

    fn delivery_timed_out(&self) {
        self.recorder.metrics.delivery_timed_out();
    }

    fn heartbeat(&self, rtt: Nanos) {
        self.recorder.metrics.heartbeat(Duration::from_nanos(rtt));
    }
}

impl Drop for SessionRecorder {
    fn drop(&mut self) {
        let opened_or_failed = self
            .session
            .as_ref()
            .is_none_or(|session| session.facts.opened_at.is_some() || session.facts.open_failure.is_some());
        if !opened_or_failed {
            self.session().facts.open_failure = Some(OpenFailure::ClientGone);
            self.set_client_end();
            self.set_upstream_fin(clock::now());
        }
        let Some(mut session) = self.session.take() else { return };
        let recorder = Arc::clone(&self.recorder);
        first_end(&recorder, &mut session, clock::now());
        let timing = session.timing();
        recorder.add_lag(&mut session.facts, timing);
        let runtime = recorder.runtime.clone();
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
        runtime.spawn(async move {
            close(&recorder, &session, early).await;
            recorder.in_flight.closed();
        });
    }
}

/// Records the first end, if the relay has not.
fn first_end(recorder: &Recorder, session: &mut Session, now: Nanos) {
    session.first_end(now);
    if !std::mem::replace(&mut session.end_notified, true) {
        recorder.metrics.ended(session.facts.opened_at.is_some());
    }
}

async fn close(recorder: &Recorder, session: &Session, early: Option<EarlyEvidence>) {
    let identity = &session.identity;
    if session.facts.opened_at.is_none() {
        recorder.evidence.register(identity, &session.live_stats);
    }
    let kernel = async {
        // The end of a session in a restart is read before t3-trace is connected again.
        if let Some(resumed_at) = session.facts.resumed_at {
            let since = Duration::from_nanos(clock::now().saturating_sub(resumed_at));
            let _ = recorder.evidence.until_connected(TRACE_WAIT.saturating_sub(since)).await;
        }
        // One query at a time: replies do not contain a query id.
        let early = match early {
            Some(early) => early.finish().await,
            None => None,
        };
        match early {
            // A record waits for evidence once: a fresh timeout is not followed by a second query.
            Some(EarlyAnswer { facts, fresh: true }) if facts.source == KernelSource::Timeout => facts,
            early => early_evidence::merge(
                early.map(|answer| answer.facts),
                recorder.evidence.query(&identity.conn).await,
            ),
        }
    };
    let clock = recorder.lag.check_hardware_clock();
    let (kernel, burst, ()) = tokio::join!(kernel, recorder.burst_around(session), clock);
    let mut facts = session.facts.clone();
    facts.pauses = recorder.lag.pauses(session.timing());
    let evidence = Evidence { relay: Some(facts), kernel, burst, dispatch_died: None };
    tracing::debug!(conn = %identity.conn, evidence = ?evidence, "judging");
    let mut record = assemble(identity, &evidence);
    record.serve_version = evidence.kernel.peer.as_ref().and_then(|process| {
        recorder.versions.of(&identity.user, identity.serve_port, process, session.facts.ended_at)
    });
    if let Some(observer) = &recorder.observer {
        observer(session, &evidence, &record);
    }
    write(recorder, session, record).await;
}

async fn write(recorder: &Recorder, session: &Session, record: CloseRecord) {
    let conn = &session.identity.conn;
    let outcome = recorder.writer.write(record.to_fields()).await;
    recorder.metrics.closed(&record, session.facts.opened_at.is_some());
    let lost = match outcome {
        Ok(t3_journal::Outcome::Written) => false,
        // t3-trace writes it.
        Ok(t3_journal::Outcome::Dropped | t3_journal::Outcome::Rejected) | Err(_) => true,
    };
    recorder.evidence.done(conn, record, lost);
}
