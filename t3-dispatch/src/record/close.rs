//! The one place where a WebSocket's story ends: evidence is gathered, judged and written, exactly
//! once.
//!
//! A [`SessionRecorder`] is opened for every upgrade that reaches serve and closes when it is
//! dropped: after a relay that ended in order, but just as well when a task panics, is cancelled or
//! the browser is gone before the 101. There is no other way to a record.

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
        recorder::Recorder,
    },
    relay::{self, session::Session},
    sys::clock,
};

/// Owns a session until its record is written, also when it is dropped early.
pub struct SessionRecorder {
    recorder: Arc<Recorder>,
    session: Option<Box<Session>>,
    /// The browser's connection up to the 101.
    connection: Option<Arc<Exchanges>>,
    early: Arc<Mutex<Option<EarlyEvidence>>>,
}

impl SessionRecorder {
    /// Starts the record of an upgrade that came on `connection`.
    #[must_use]
    pub fn open(recorder: &Arc<Recorder>, session: Session, connection: Option<Arc<Exchanges>>) -> Self {
        recorder.in_flight.opened();
        recorder.metrics.asked();
        Self {
            recorder: Arc::clone(recorder),
            session: Some(Box::new(session)),
            connection,
            early: Arc::default(),
        }
    }

    /// The session.
    ///
    /// # Panics
    /// Never: only dropping takes it.
    #[expect(clippy::expect_used, reason = "the session is taken by drop alone")]
    pub fn session(&mut self) -> &mut Session {
        self.session.as_deref_mut().expect("a recorder holds its session until it is dropped")
    }

    /// The WebSocket opened: registers it with t3-trace and writes `ws open`.
    pub fn opened(&mut self, extended: bool) {
        let now = clock::now();
        let recorder = Arc::clone(&self.recorder);
        let session = self.session();
        session.opened(now, extended);
        let who = &session.who;
        recorder.evidence.register(who, &session.published);
        let mut record = OpenRecord::new(who.user.clone(), who.ip.clone(), who.conn.clone());
        record.ray.clone_from(&who.ray);
        let before = recorder
            .reconnects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .opened(&who.user, &who.ip, now);
        let gap = before.as_ref().map(|(_, gap)| *gap);
        record.prev = before.map(|(prev, _)| prev);
        record.gap_ms = gap.map(|gap| gap / 1_000_000);
        recorder.metrics.opened(gap.map(Duration::from_nanos));
        // Nobody waits for it; the writer counts what it cannot keep.
        drop(recorder.writer.write(record.to_fields()));
        recorder.evidence.opened(record);
    }

    /// The observer of this session's relay.
    #[must_use]
    pub fn observer(&self) -> SessionObserver {
        SessionObserver { recorder: Arc::clone(&self.recorder), early: Arc::clone(&self.early) }
    }

    /// The attempt to open failed.
    pub fn failed(mut self, why: OpenFailure) {
        let now = clock::now();
        let facts = &mut self.session().facts;
        facts.open_failure = Some(why);
        if why == OpenFailure::ClientGone {
            self.browser_gone();
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
        self.gave_up(now);
        let recorder = Arc::clone(&self.recorder);
        first_end(&recorder, self.session(), now);
    }

    /// How the browser left, as far as its connection was seen to end; or we dropped it when told
    /// to stop.
    fn browser_gone(&mut self) {
        let over = self.connection.as_ref().and_then(|connection| connection.over());
        let stop = self.recorder.shutdown.triggered();
        let facts = &mut self.session().facts;
        facts.down.end = facts.down.end.or(over);
        facts.shutdown = facts.shutdown.or(stop);
    }

    /// An open attempt that ends without serve's doing ends serve's leg by ours.
    fn gave_up(&mut self, now: Nanos) {
        let session = self.session();
        let theirs = matches!(session.facts.open_failure, Some(OpenFailure::Status(_)));
        if session.who.up.is_some() && session.facts.up.end.is_none() && !theirs {
            session.told(Side::Up, OwnEnd::Fin, now);
        }
    }
}

/// Observer of one session's relay.
pub struct SessionObserver {
    recorder: Arc<Recorder>,
    early: Arc<Mutex<Option<EarlyEvidence>>>,
}

impl relay::RelayObserver for SessionObserver {
    /// A reconnect must find its predecessor, and some evidence does not keep.
    fn end_began(&self, session: &Session) {
        self.recorder.metrics.ended(true);
        let who = &session.who;
        let mut recent = self.recorder.reconnects.lock().unwrap_or_else(PoisonError::into_inner);
        let at = session.end_began().unwrap_or_else(clock::now);
        recent.ended(&who.user, &who.ip, &who.conn, at);
        drop(recent);
        let asking = EarlyEvidence::start(self.recorder.evidence.clone(), who.conn.clone());
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) = Some(asking);
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
            self.browser_gone();
            self.gave_up(clock::now());
        }
        let Some(mut session) = self.session.take() else { return };
        let recorder = Arc::clone(&self.recorder);
        first_end(&recorder, &mut session, clock::now());
        if let Some(delay) = recorder.lag.worst() {
            session.facts.self_lag_ms = Some(delay.late / 1_000_000);
            session.facts.self_lag_at = Some(delay.at);
        }
        let runtime = recorder.runtime.clone();
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
        runtime.spawn(async move {
            close(&recorder, &session, early).await;
            recorder.in_flight.closed();
        });
    }
}

/// The first end, unless it has been noted before.
fn first_end(recorder: &Recorder, session: &mut Session, now: Nanos) {
    session.first_end(now);
    if !std::mem::replace(&mut session.end_told, true) {
        recorder.metrics.ended(session.facts.opened_at.is_some());
    }
}

async fn close(recorder: &Recorder, session: &Session, early: Option<EarlyEvidence>) {
    let who = &session.who;
    if session.facts.opened_at.is_none() {
        recorder.evidence.register(who, &session.published);
    }
    let kernel = async {
        // One question at a time: the answers carry no number.
        let early = match early {
            Some(early) => early.finish().await,
            None => None,
        };
        match early {
            // It has just been waited for once: a record waits for evidence no longer than that.
            Some(EarlyAnswer { facts, fresh: true }) if facts.source == KernelSource::Timeout => facts,
            early => early_evidence::merge(
                early.map(|answer| answer.facts),
                recorder.evidence.ask(&who.conn).await,
            ),
        }
    };
    let (kernel, burst) = tokio::join!(kernel, recorder.burst_around(session));
    let evidence = Evidence { relay: Some(session.facts.clone()), kernel, burst, dispatch_died: None };
    tracing::debug!(conn = %who.conn, evidence = ?evidence, "judging");
    let record = assemble(who, &evidence);
    if let Some(observer) = &recorder.observer {
        observer(session, &evidence, &record);
    }
    write(recorder, session, record).await;
}

async fn write(recorder: &Recorder, session: &Session, record: CloseRecord) {
    let conn = &session.who.conn;
    let outcome = recorder.writer.write(record.to_fields()).await;
    recorder.metrics.closed(&record, session.facts.opened_at.is_some());
    match outcome {
        Ok(t3_journal::Outcome::Written) => recorder.evidence.done(conn, record),
        // t3-trace is not told, so that it writes the record that we could not.
        Ok(t3_journal::Outcome::Dropped) | Err(_) => recorder.evidence.forget(conn),
    }
}
