//! Client of the evidence socket: one connection to t3-trace for all sessions, with reconnect.
//!
//! Callers never wait for the socket: messages go into a bounded queue, and the connection to a
//! t3-trace that does not read is closed when the queue is full. After each reconnect all open
//! sessions are registered again. Only [`EvidenceClient::query`] waits ([`Patience`]).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use t3_record::{
    CloseRecord, KernelSource, OpenRecord,
    evidence::{KernelFacts, Nanos, RelayFacts},
    vocabulary::HeartbeatSource,
    wire::{
        FromTrace, JournalState, MAX_MESSAGE, MOST_ENDED, Role, Session, ToTrace, VERSION, live::StatsReport,
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_seqpacket::UnixSeqpacket;

use crate::{
    evidence::{
        live_reports::{self, StatsReporter},
        patience::{Patience, Wait},
        recent::RecentRecords,
    },
    relay::live_stats::LiveStats,
    sys::{clock, seqpacket},
};

/// Limit of unsent messages; a t3-trace with more does not read its socket.
const QUEUE: usize = 8192;
/// Free places of the queue below which facts of sessions that end are left out: queries and
/// records matter more.
const RESERVE: usize = QUEUE / 2;
const WELCOME_TIMEOUT: Duration = Duration::from_secs(2);
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which a full accept queue of t3-trace is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(250);
/// Interval of [`EvidenceClient::until_connected`].
const POLL: Duration = Duration::from_millis(50);
/// Records written without a connection are sent later, if t3-trace is back within this time: it
/// may still hold their sessions, and it writes those that are lost.
const UNDELIVERED_AGE: Nanos = 600_000_000_000;
const UNDELIVERED_MAX: usize = 20_000;

#[derive(Default)]
struct State {
    /// Queue of the connection; `None` while not connected.
    out: Option<mpsc::Sender<ToTrace>>,
    sessions: HashMap<String, (Box<Session>, Arc<LiveStats>)>,
    queries: HashMap<String, oneshot::Sender<Box<KernelFacts>>>,
    /// The message with the ports that t3-trace watches.
    watch: Option<ToTrace>,
    /// The connected t3-trace accepts the facts of sessions that end.
    accepts_ending: bool,
    undelivered: VecDeque<(Nanos, ToTrace)>,
    /// On all connections.
    recent: RecentRecords,
    /// Answers to queries so far.
    answers: u64,
    /// Last report of the connected t3-trace.
    journal: Option<JournalState>,
    /// t3-trace waits for the successor of a dispatch.
    accepts_kept: bool,
    /// Sessions of the process before that have ended, and whose record this process writes;
    /// `None` until all others are registered.
    picked_up: Option<Vec<String>>,
}

/// Client of t3-trace's evidence socket; cheap to clone.
#[derive(Clone)]
pub struct EvidenceClient {
    state: Arc<Mutex<State>>,
    patience: Patience,
}

impl EvidenceClient {
    /// Starts a task that keeps a connection to `path`. [`EvidenceClient::query`] waits for
    /// `query_timeout` without an answer to any query.
    #[must_use]
    pub fn start(path: PathBuf, query_timeout: Duration) -> Self {
        let client = Self { state: Arc::default(), patience: Patience::new(query_timeout) };
        tokio::spawn(client.clone().keep_connected(path));
        client
    }

    /// Sets the ports that t3-trace watches, and the users of the serve ports.
    pub fn watch(&self, listen: Vec<u16>, serve: Vec<u16>, users: &BTreeMap<u16, String>) {
        let message = ToTrace::watch(listen, serve, users);
        let mut state = self.lock();
        state.watch = Some(message.clone());
        state.send(message);
    }

    /// Registers a session that is open or that failed to open; its live stats are sent during a
    /// subscription.
    pub fn register(&self, session: &Session, live: &Arc<LiveStats>) {
        let session = Box::new(session.clone());
        let mut state = self.lock();
        state.sessions.insert(session.conn.clone(), (session.clone(), Arc::clone(live)));
        state.send(ToTrace::Register(session));
    }

    /// Sends a `ws open` record.
    pub fn opened(&self, record: OpenRecord) {
        self.lock().send(ToTrace::Opened { record: Box::new(record) });
    }

    /// Sends the facts of a session that ends. Nothing waits for them: they are left out without a
    /// connection, for an older t3-trace, and while many messages are queued.
    pub fn ending(&self, conn: &str, facts: impl FnOnce() -> RelayFacts) {
        let mut state = self.lock();
        let has_room = state.out.as_ref().is_some_and(|out| out.capacity() > RESERVE);
        if state.accepts_ending && has_room {
            state.send(ToTrace::Ending { conn: conn.to_owned(), facts: Box::new(facts()) });
        }
    }

    /// Returns the kernel evidence of a registered session.
    pub async fn query(&self, conn: &str) -> KernelFacts {
        let (mut reply, mut wait) = {
            let mut state = self.lock();
            if state.out.is_none() {
                return KernelFacts::absent(KernelSource::Off);
            }
            let (sender, reply) = oneshot::channel();
            state.queries.insert(conn.to_owned(), sender);
            if !state.send(ToTrace::Ask { conn: conn.to_owned() }) {
                state.queries.remove(conn);
                return KernelFacts::absent(KernelSource::Off);
            }
            (reply, Wait::new(state.answers))
        };
        loop {
            match timeout(self.patience.slice(), &mut reply).await {
                Ok(Ok(facts)) => return *facts,
                // The connection failed during the wait.
                Ok(Err(_)) => return KernelFacts::absent(KernelSource::Off),
                Err(_) => {
                    let mut state = self.lock();
                    if !wait.goes_on(state.answers) {
                        state.queries.remove(conn);
                        return KernelFacts::absent(KernelSource::Timeout);
                    }
                }
            }
        }
    }

    /// Sends a `ws close` record and unregisters its session. `lost`: journald did not get it, so
    /// t3-trace has to write it.
    pub fn done(&self, conn: &str, record: CloseRecord, lost: bool) {
        let mut state = self.lock();
        state.sessions.remove(conn);
        let message = ToTrace::Done { conn: conn.to_owned(), record: Box::new(record), lost, again: false };
        if state.out.is_some() {
            state.send(message);
        } else {
            state.keep_undelivered(message);
        }
    }

    /// Returns the memory of tables that were larger.
    pub fn shrink(&self) {
        let mut state = self.lock();
        let State { sessions, queries, undelivered, .. } = &mut *state;
        sessions.shrink_to(2 * sessions.len());
        queries.shrink_to(2 * queries.len());
        undelivered.shrink_to(2 * undelivered.len());
    }

    /// Number of registered sessions that opened before `then` and have no recognised heartbeat.
    #[must_use]
    pub fn without_heartbeat(&self, then: Nanos) -> usize {
        let is_old = |session: &Session| session.opened_at.is_some_and(|opened| opened <= then);
        let state = self.lock();
        let sessions = state.sessions.values();
        sessions.filter(|(session, live)| is_old(session) && live.hb_by() == HeartbeatSource::None).count()
    }

    /// Records compared with the journal, as the connected t3-trace last reported.
    #[must_use]
    pub fn journal(&self) -> Option<JournalState> {
        self.lock().journal
    }

    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.lock().out.is_some()
    }

    /// Waits up to `limit` until t3-trace is connected; returns whether it is.
    pub async fn until_connected(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while !self.is_connected() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(POLL).await;
        }
        true
    }

    /// Reports that all sessions which this process continues are registered.
    pub fn picked_up(&self) {
        let mut state = self.lock();
        let ended = state.picked_up.get_or_insert_default().clone();
        if state.accepts_kept {
            state.send(ToTrace::PickedUp { ended });
        }
    }

    /// Whether t3-trace writes the record of this session of the process before. If it is not
    /// connected, the caller has to, and t3-trace learns it when it connects.
    #[must_use]
    pub fn takes_record_of(&self, conn: &str) -> bool {
        let mut state = self.lock();
        if state.out.is_some() && state.accepts_kept {
            return true;
        }
        let ended = state.picked_up.get_or_insert_default();
        if ended.len() >= MOST_ENDED {
            // Left to t3-trace, whenever it connects.
            return true;
        }
        ended.push(conn.to_owned());
        false
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_connected(self, path: PathBuf) {
        let mut wait = RETRY_FIRST;
        let mut last_logged = None;
        loop {
            let why = match self.connection(&path, &mut last_logged).await {
                Ok(why) => {
                    wait = RETRY_FIRST;
                    why
                }
                Err(error) => error.to_string(),
            };
            {
                let mut state = self.lock();
                state.out = None;
                state.queries.clear();
                state.journal = None;
            }
            if last_logged.as_deref() != Some(&why) {
                tracing::info!("no kernel evidence from {}: {why}; retrying", path.display());
                last_logged = Some(why);
            }
            sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Runs one connection. `Ok` has the reason why an established connection ended.
    async fn connection(&self, path: &Path, last_logged: &mut Option<String>) -> io::Result<String> {
        let socket = seqpacket::connect_waiting(path, CONNECT_TIMEOUT).await?;
        send(&socket, &ToTrace::Hello { v: VERSION, role: Role::Dispatch }).await?;
        let mut buffer = vec![0; MAX_MESSAGE];
        let welcome = timeout(WELCOME_TIMEOUT, receive(&socket, &mut buffer))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no reply to Hello"))??;
        let kernel = match welcome {
            Some(FromTrace::Welcome { kernel, ending, kept, .. }) => {
                let mut state = self.lock();
                state.accepts_ending = ending;
                state.accepts_kept = kept;
                drop(state);
                kernel
            }
            Some(FromTrace::Refused { why }) => return Err(io::Error::other(format!("rejected: {why}"))),
            Some(_) => return Err(io::Error::other("unexpected reply to Hello")),
            None => return Err(io::Error::other("connection closed by t3-trace")),
        };
        tracing::info!("kernel evidence from {}: {kernel}", path.display());
        *last_logged = None;
        let (out, mut queue) = mpsc::channel(QUEUE);
        let mut waiting = self.lock().connected(out);
        let (lease, mut leases) = mpsc::channel(1);
        let writing = async {
            let mut reporter = StatsReporter::new(Instant::now());
            loop {
                while let Some(message) = waiting.front() {
                    let encoded = send(&socket, message).await?;
                    self.lock().sent(waiting.pop_front(), &encoded);
                }
                tokio::select! {
                    message = queue.recv() => match message {
                        Some(message) => waiting.push_back(message),
                        None => return Ok("t3-trace does not read its socket".to_owned()),
                    },
                    // One at a time, so that records and queries do not wait for a complete
                    // collection.
                    stats = reporter.message(|all| self.stats(all)) => drop(send(&socket, &stats).await?),
                    Some(ms) = leases.recv() => reporter.renew(ms, Instant::now()),
                }
            }
        };
        // Reads while a send waits: t3-trace answers the first of many queries before it has read
        // the last.
        let reading = async {
            loop {
                match receive(&socket, &mut buffer).await? {
                    Some(FromTrace::Evidence { conn, facts }) => self.deliver(&conn, facts),
                    Some(FromTrace::Refused { why }) => return Ok(format!("rejected: {why}")),
                    Some(FromTrace::Journal(counts)) => self.lock().journal = Some(counts),
                    Some(FromTrace::WantPulses { ms }) => {
                        // t3-trace renews its request in time if this one finds no place.
                        let _ = lease.try_send(ms);
                    }
                    Some(_) => {}
                    None => return Ok("connection closed by t3-trace".to_owned()),
                }
            }
        };
        let end = tokio::select! { end = writing => end, end = reading => end };
        self.lock().disconnected(waiting, queue);
        end
    }

    fn stats(&self, all: bool) -> Vec<StatsReport> {
        let state = self.lock();
        live_reports::collect(state.sessions.values().map(|(identity, live)| (&**identity, &**live)), all)
    }

    fn deliver(&self, conn: &str, facts: Box<KernelFacts>) {
        let mut state = self.lock();
        state.answers += 1;
        if let Some(sender) = state.queries.remove(conn) {
            let _ = sender.send(facts);
        }
    }
}

impl State {
    /// Starts to use `out` and returns the messages that must be sent before those in it.
    fn connected(&mut self, out: mpsc::Sender<ToTrace>) -> VecDeque<ToTrace> {
        self.out = Some(out);
        let watch = self.watch.clone();
        let sessions = self.sessions.values().map(|(session, _)| ToTrace::Register(session.clone()));
        let mut backlog: VecDeque<_> = watch.into_iter().chain(sessions).collect();
        let picked_up = self.picked_up.clone().filter(|_| self.accepts_kept);
        backlog.extend(picked_up.map(|ended| ToTrace::PickedUp { ended }));
        backlog.extend(self.recent.take());
        let now = clock::now();
        let recent = self.undelivered.drain(..).filter(|(at, _)| now.saturating_sub(*at) < UNDELIVERED_AGE);
        backlog.extend(recent.map(|(_, message)| message));
        backlog
    }

    /// The socket has the message.
    fn sent(&mut self, message: Option<ToTrace>, encoded: &[u8]) {
        if matches!(message, Some(ToTrace::Done { .. })) {
            self.recent.push(encoded);
        }
    }

    /// Keeps the records that the socket does not have.
    fn disconnected(&mut self, waiting: VecDeque<ToTrace>, mut queue: mpsc::Receiver<ToTrace>) {
        self.out = None;
        queue.close();
        let queued = std::iter::from_fn(|| queue.try_recv().ok());
        for message in waiting.into_iter().chain(queued) {
            if matches!(message, ToTrace::Done { .. }) {
                self.keep_undelivered(message);
            }
        }
    }

    /// Queues a message. Returns `false` without a connection; a full queue ends the connection.
    fn send(&mut self, message: ToTrace) -> bool {
        let Some(out) = &self.out else { return false };
        match out.try_send(message) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(message) | mpsc::error::TrySendError::Closed(message)) => {
                self.out = None;
                if matches!(message, ToTrace::Done { .. }) {
                    self.keep_undelivered(message);
                }
                false
            }
        }
    }

    fn keep_undelivered(&mut self, message: ToTrace) {
        let now = clock::now();
        let old = |at: Nanos| now.saturating_sub(at) >= UNDELIVERED_AGE;
        while self.undelivered.len() >= UNDELIVERED_MAX
            || self.undelivered.front().is_some_and(|(at, _)| old(*at))
        {
            self.undelivered.pop_front();
        }
        self.undelivered.push_back((now, message));
    }
}

/// Sends a message, and returns it as it was sent.
async fn send(socket: &UnixSeqpacket, message: &ToTrace) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message)?;
    timeout(SEND_TIMEOUT, socket.send(&bytes))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "t3-trace does not read its socket"))??;
    Ok(bytes)
}

/// Returns the next message, `None` at the end of the connection. Unknown messages of a newer
/// t3-trace are skipped.
async fn receive(socket: &UnixSeqpacket, buffer: &mut [u8]) -> io::Result<Option<FromTrace>> {
    loop {
        let length = socket.recv(buffer).await?.bytes_read();
        if length == 0 {
            return Ok(None);
        }
        match serde_json::from_slice(&buffer[..length]) {
            Ok(message) => return Ok(Some(message)),
            Err(error) => tracing::debug!("cannot decode a message of t3-trace: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_wait_for_a_connection_is_bounded() {
        let client = EvidenceClient::start("/nonexistent".into(), Duration::ZERO);
        assert!(!client.until_connected(Duration::from_millis(1)).await);
        let (out, _messages) = mpsc::channel(1);
        client.lock().connected(out);
        assert!(client.until_connected(Duration::ZERO).await);
    }

    #[tokio::test]
    async fn old_sessions_without_a_heartbeat_are_counted() {
        let client = EvidenceClient::start("/nonexistent".into(), Duration::ZERO);
        for (conn, opened_at, source) in [
            ("old", Some(10), HeartbeatSource::None),
            ("limit", Some(20), HeartbeatSource::None),
            ("young", Some(21), HeartbeatSource::None),
            ("recognised", Some(10), HeartbeatSource::Rhythm),
            ("not open", None, HeartbeatSource::None),
        ] {
            let session = Session {
                conn: conn.into(),
                user: "u".into(),
                ip: "i".into(),
                ray: None,
                opened_at,
                down: None,
                up: None,
                serve_port: 1,
                kept: false,
                resumed: 0,
            };
            let live = Arc::new(LiveStats::default());
            live.update(0, 0, None, None, source);
            client.register(&session, &live);
        }
        assert_eq!(client.without_heartbeat(20), 2);
    }
}
