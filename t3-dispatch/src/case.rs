//! The one place where a WebSocket's story ends: evidence is gathered, judged and written, exactly once.
//!
//! A [`Case`] is opened for every upgrade that reaches serve and closes when it is dropped: after a relay that ended in order, but just as
//! well when a task panics, is cancelled or the browser is gone before the 101. There is no other way to a record.

use std::sync::{Arc, PoisonError};

use t3_record::{
    CloseRecord, Evidence, OpenRecord, assemble,
    evidence::{Nanos, OpenFailure, SeenEnd},
};

use crate::{app::App, burst, clock, session::Session};

/// An open case: owns the session until its record is on its way.
pub struct Case {
    app: Arc<App>,
    session: Option<Box<Session>>,
}

impl Case {
    /// Opens a case.
    #[must_use]
    pub fn open(app: &Arc<App>, session: Session) -> Self {
        app.cases.opened();
        Self { app: Arc::clone(app), session: Some(Box::new(session)) }
    }

    /// What all connections share.
    #[must_use]
    pub fn app(&self) -> Arc<App> {
        Arc::clone(&self.app)
    }

    /// The session.
    ///
    /// # Panics
    /// Never: only dropping takes it.
    #[expect(clippy::expect_used, reason = "the session is taken by drop alone")]
    pub fn session(&mut self) -> &mut Session {
        self.session.as_deref_mut().expect("a case holds its session until it is dropped")
    }

    /// The WebSocket opened: registers it with t3-trace and writes `ws open`.
    pub fn opened(&mut self, extended: bool) {
        let now = clock::now();
        let app = Arc::clone(&self.app);
        let session = self.session();
        session.opened(now, extended);
        let who = &session.who;
        app.trace.register(who);
        let mut record = OpenRecord::new(who.user.clone(), who.ip.clone(), who.conn.clone());
        record.ray.clone_from(&who.ray);
        let before =
            app.recent.lock().unwrap_or_else(PoisonError::into_inner).opened(&who.user, &who.ip, now);
        if let Some((prev, gap)) = before {
            record.prev = Some(prev);
            record.gap_ms = Some(gap / 1_000_000);
        }
        // Nobody waits for it; the writer counts what it cannot keep.
        drop(app.writer.write(record.to_fields()));
        app.trace.opened(record);
    }

    /// The attempt to open failed.
    pub fn failed(mut self, why: OpenFailure) {
        let now = clock::now();
        let facts = &mut self.session().facts;
        facts.open_failure = Some(why);
        let up = match why {
            OpenFailure::Refused => Some(SeenEnd::Refused),
            OpenFailure::Unreach => Some(SeenEnd::Unreach),
            OpenFailure::HandshakeEof => Some(SeenEnd::Eof),
            OpenFailure::HandshakeReset => Some(SeenEnd::Reset),
            _ => None,
        };
        facts.up.end = up.map(|end| (end, now));
        self.session().first_end(now);
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        if session.facts.opened_at.is_none() && session.facts.open_failure.is_none() {
            session.facts.open_failure = Some(OpenFailure::ClientGone);
        }
        session.first_end(clock::now());
        let app = Arc::clone(&self.app);
        if let Some(delay) = app.lag.worst() {
            session.facts.self_lag_ms = Some(delay.late / 1_000_000);
            session.facts.self_lag_at = Some(delay.at);
        }
        let runtime = app.runtime.clone();
        runtime.spawn(async move {
            close(&app, &session).await;
            app.cases.closed();
        });
    }
}

async fn close(app: &Arc<App>, session: &Session) {
    let who = &session.who;
    let ended_at = session.facts.ended_at;
    if session.facts.opened_at.is_some() {
        app.recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended(&who.user, &who.ip, &who.conn, ended_at);
    } else {
        app.trace.register(who);
    }
    let (kernel, burst) = tokio::join!(app.trace.ask(&who.conn), neighbours(app, session));
    let evidence = Evidence { relay: Some(session.facts.clone()), kernel, burst, dispatch_died: None };
    tracing::debug!(conn = %who.conn, evidence = ?evidence, "judging");
    let record = assemble(who, &evidence);
    if let Some(witness) = &app.witness {
        witness(session, &evidence, &record);
    }
    write(app, &who.conn, record).await;
}

async fn write(app: &App, conn: &str, record: CloseRecord) {
    match app.writer.write(record.to_fields()).await {
        Ok(t3_journal::Outcome::Written) => app.trace.done(conn, record),
        // t3-trace is not told, so that it writes the record that we could not.
        Ok(t3_journal::Outcome::Dropped) | Err(_) => app.trace.forget(conn),
    }
}

/// Waits for neighbours that end in the same second, when this ending could be one of many.
async fn neighbours(app: &Arc<App>, session: &Session) -> Option<t3_record::evidence::Burst> {
    if !burst::candidate(&session.facts) {
        return None;
    }
    let at: Nanos = session.facts.ended_at;
    let sum = app.bursts.lock().unwrap_or_else(PoisonError::into_inner).note(&session.who.user, at);
    write_burst(app, sum);
    // With so few sessions at all nobody needs to wait.
    if app.cases.count() < burst::FEWEST as usize {
        return None;
    }
    tokio::time::sleep(burst::WAIT).await;
    app.bursts.lock().unwrap_or_else(PoisonError::into_inner).around(at)
}

/// Writes the sum of a burst, if there was one.
pub fn write_burst(app: &App, sum: Option<t3_record::BurstRecord>) {
    if let Some(sum) = sum {
        drop(app.writer.write(sum.to_fields()));
    }
}

/// Sees each session as it is judged: for metrics, and for tests of what was seen.
pub type Witness = Box<dyn Fn(&Session, &Evidence, &CloseRecord) + Send + Sync>;
