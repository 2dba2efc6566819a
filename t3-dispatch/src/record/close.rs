//! The one place where a WebSocket's story ends: evidence is gathered, judged and written, exactly
//! once.
//!
//! A [`Case`] is opened for every upgrade that reaches serve and closes when it is dropped: after a
//! relay that ended in order, but just as well when a task panics, is cancelled or the browser is
//! gone before the 101. There is no other way to a record.

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
        burst,
        early_evidence::{self, Answer, Early},
    },
    relay::{self, session::Session},
    server::app::App,
    sys::clock,
};

/// An open case: owns the session until its record is on its way.
pub struct Case {
    app: Arc<App>,
    session: Option<Box<Session>>,
    /// The browser's connection up to the 101.
    connection: Option<Arc<Exchanges>>,
    early: Arc<Mutex<Option<Early>>>,
}

impl Case {
    /// Opens a case for an upgrade that came on `connection`.
    #[must_use]
    pub fn open(app: &Arc<App>, session: Session, connection: Option<Arc<Exchanges>>) -> Self {
        app.cases.opened();
        app.metrics.asked();
        Self { app: Arc::clone(app), session: Some(Box::new(session)), connection, early: Arc::default() }
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
        app.trace.register(who, &session.published);
        let mut record = OpenRecord::new(who.user.clone(), who.ip.clone(), who.conn.clone());
        record.ray.clone_from(&who.ray);
        let before =
            app.recent.lock().unwrap_or_else(PoisonError::into_inner).opened(&who.user, &who.ip, now);
        let gap = before.as_ref().map(|(_, gap)| *gap);
        record.prev = before.map(|(prev, _)| prev);
        record.gap_ms = gap.map(|gap| gap / 1_000_000);
        app.metrics.opened(gap.map(Duration::from_nanos));
        // Nobody waits for it; the writer counts what it cannot keep.
        drop(app.writer.write(record.to_fields()));
        app.trace.opened(record);
    }

    /// What listens to the relay.
    #[must_use]
    pub fn ear(&self) -> Ear {
        Ear { app: self.app(), early: Arc::clone(&self.early) }
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
        let app = self.app();
        first_end(&app, self.session(), now);
    }

    /// How the browser left, as far as its connection was seen to end; or we dropped it when told
    /// to stop.
    fn browser_gone(&mut self) {
        let over = self.connection.as_ref().and_then(|connection| connection.over());
        let stop = self.app.stop.said();
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

/// What is to be done while the relay runs.
pub struct Ear {
    app: Arc<App>,
    early: Arc<Mutex<Option<Early>>>,
}

impl relay::Ear for Ear {
    /// A reconnect must find its predecessor, and some evidence does not keep.
    fn end_began(&self, session: &Session) {
        self.app.metrics.ended(true);
        let who = &session.who;
        let mut recent = self.app.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let at = session.end_began().unwrap_or_else(clock::now);
        recent.ended(&who.user, &who.ip, &who.conn, at);
        drop(recent);
        let asking = Early::start(self.app.trace.clone(), who.conn.clone());
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) = Some(asking);
    }

    fn heartbeat(&self, rtt: Nanos) {
        self.app.metrics.heartbeat(Duration::from_nanos(rtt));
    }
}

impl Drop for Case {
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
        let app = Arc::clone(&self.app);
        first_end(&app, &mut session, clock::now());
        if let Some(delay) = app.lag.worst() {
            session.facts.self_lag_ms = Some(delay.late / 1_000_000);
            session.facts.self_lag_at = Some(delay.at);
        }
        let runtime = app.runtime.clone();
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
        runtime.spawn(async move {
            close(&app, &session, early).await;
            app.cases.closed();
        });
    }
}

/// The first end, unless it has been noted before.
fn first_end(app: &App, session: &mut Session, now: Nanos) {
    session.first_end(now);
    if !std::mem::replace(&mut session.end_told, true) {
        app.metrics.ended(session.facts.opened_at.is_some());
    }
}

async fn close(app: &Arc<App>, session: &Session, early: Option<Early>) {
    let who = &session.who;
    if session.facts.opened_at.is_none() {
        app.trace.register(who, &session.published);
    }
    let kernel = async {
        // One question at a time: the answers carry no number.
        let early = match early {
            Some(early) => early.finish().await,
            None => None,
        };
        match early {
            // It has just been waited for once: a record waits for evidence no longer than that.
            Some(Answer { facts, fresh: true }) if facts.source == KernelSource::Timeout => facts,
            early => early_evidence::merge(early.map(|answer| answer.facts), app.trace.ask(&who.conn).await),
        }
    };
    let (kernel, burst) = tokio::join!(kernel, neighbours(app, session));
    let evidence = Evidence { relay: Some(session.facts.clone()), kernel, burst, dispatch_died: None };
    tracing::debug!(conn = %who.conn, evidence = ?evidence, "judging");
    let record = assemble(who, &evidence);
    if let Some(witness) = &app.witness {
        witness(session, &evidence, &record);
    }
    write(app, session, record).await;
}

async fn write(app: &App, session: &Session, record: CloseRecord) {
    let conn = &session.who.conn;
    let outcome = app.writer.write(record.to_fields()).await;
    app.metrics.closed(&record, session.facts.opened_at.is_some());
    match outcome {
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
    app.bursts.lock().unwrap_or_else(PoisonError::into_inner).cuts.cut(at, &session.who.user);
    // With so few sessions at all nobody needs to wait.
    if app.cases.count() < t3_record::burst::LEAST as usize {
        return None;
    }
    tokio::time::sleep(burst::WAIT).await;
    app.bursts.lock().unwrap_or_else(PoisonError::into_inner).around(at, clock::now())
}

/// Writes the sum of a burst, if there was one.
pub fn write_burst(app: &App, sum: Option<t3_record::BurstRecord>) {
    if let Some(sum) = sum {
        drop(app.writer.write(sum.to_fields()));
    }
}

/// Sees each session as it is judged: for metrics, and for tests of what was seen.
pub type Witness = Box<dyn Fn(&Session, &Evidence, &CloseRecord) + Send + Sync>;
