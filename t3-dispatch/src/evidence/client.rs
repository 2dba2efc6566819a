//! The client of the evidence socket: one connection to t3-trace for all sessions, made again for
//! as long as dispatch lives.
//!
//! Callers never wait for the socket: they leave messages in a bounded queue, and a t3-trace that
//! does not read loses its connection instead of growing it. After each new connection all open
//! sessions are registered again. Only [`Trace::ask`] waits, and never longer than it was told to
//! at the start.

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use t3_record::{
    CloseRecord, KernelSource, OpenRecord,
    evidence::{KernelFacts, Nanos},
    wire::{FromTrace, MAX_MESSAGE, Role, Session, ToTrace, VERSION, live::StatsReport},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_seqpacket::UnixSeqpacket;

use crate::{
    evidence::live_reports::{self, Rounds},
    relay::live_stats::Published,
    sys::clock,
};

/// Messages on their way to t3-trace. One that lets more than these pile up is not reading.
const QUEUE: usize = 8192;
const WELCOME_TIME: Duration = Duration::from_secs(2);
const SEND_TIME: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_millis(250);
/// Records written while t3-trace was away are told to it later, if it comes back within this time:
/// it may still hold their sessions.
const REMEMBER: Nanos = 60_000_000_000;
const REMEMBER_MOST: usize = 20_000;

#[derive(Default)]
struct State {
    /// Where messages go; `None` while not connected.
    out: Option<mpsc::Sender<ToTrace>>,
    sessions: HashMap<String, (Box<Session>, Arc<Published>)>,
    asked: HashMap<String, oneshot::Sender<Box<KernelFacts>>>,
    ports: Option<(Vec<u16>, Vec<u16>)>,
    undelivered: VecDeque<(Nanos, ToTrace)>,
}

/// The client; cheap to clone.
#[derive(Clone)]
pub struct Trace {
    state: Arc<Mutex<State>>,
    patience: Duration,
}

impl Trace {
    /// Starts to connect to `path`, for as long as the runtime lives. A session's record waits for
    /// kernel evidence as long as `patience`.
    #[must_use]
    pub fn start(path: PathBuf, patience: Duration) -> Self {
        let trace = Self { state: Arc::default(), patience };
        tokio::spawn(trace.clone().keep_connected(path));
        trace
    }

    /// The ports to watch from now on.
    pub fn watch(&self, listen: Vec<u16>, serve: Vec<u16>) {
        let mut state = self.lock();
        state.ports = Some((listen.clone(), serve.clone()));
        state.send(ToTrace::Watch { listen, serve });
    }

    /// A session is open, or about to fail to open. Its live numbers are told while somebody
    /// watches.
    pub fn register(&self, session: &Session, live: &Arc<Published>) {
        let session = Box::new(session.clone());
        let mut state = self.lock();
        state.sessions.insert(session.conn.clone(), (session.clone(), Arc::clone(live)));
        state.send(ToTrace::Register(session));
    }

    /// Its `ws open` was written.
    pub fn opened(&self, record: OpenRecord) {
        self.lock().send(ToTrace::Opened { record: Box::new(record) });
    }

    /// What the kernel knows of a registered session.
    pub async fn ask(&self, conn: &str) -> KernelFacts {
        let answer = {
            let mut state = self.lock();
            if state.out.is_none() {
                return KernelFacts::absent(KernelSource::Off);
            }
            let (tell, answer) = oneshot::channel();
            state.asked.insert(conn.to_owned(), tell);
            if !state.send(ToTrace::Ask { conn: conn.to_owned() }) {
                state.asked.remove(conn);
                return KernelFacts::absent(KernelSource::Off);
            }
            answer
        };
        match timeout(self.patience, answer).await {
            Ok(Ok(facts)) => *facts,
            // The connection broke while we waited.
            Ok(Err(_)) => KernelFacts::absent(KernelSource::Off),
            Err(_) => {
                self.lock().asked.remove(conn);
                KernelFacts::absent(KernelSource::Timeout)
            }
        }
    }

    /// The session's record is in the journal.
    pub fn done(&self, conn: &str, record: CloseRecord) {
        let mut state = self.lock();
        state.sessions.remove(conn);
        let message = ToTrace::Done { conn: conn.to_owned(), record: Box::new(record) };
        if state.out.is_some() {
            state.send(message);
        } else {
            state.remember(message);
        }
    }

    /// The session is over and will have no record of ours.
    pub fn forget(&self, conn: &str) {
        self.lock().sessions.remove(conn);
    }

    /// t3-trace is there.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.lock().out.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_connected(self, path: PathBuf) {
        let mut wait = RETRY_FIRST;
        let mut told = None;
        loop {
            let why = match self.connection(&path, &mut told).await {
                Ok(why) => {
                    wait = RETRY_FIRST;
                    why
                }
                Err(error) => error.to_string(),
            };
            {
                let mut state = self.lock();
                state.out = None;
                state.asked.clear();
            }
            if told.as_deref() != Some(&why) {
                tracing::info!("no kernel evidence from {}: {why}; retrying", path.display());
                told = Some(why);
            }
            sleep(wait).await;
            wait = (wait * 2).min(RETRY_MOST);
        }
    }

    /// One connection from hello to its end. `Ok` says why a connection that worked has ended.
    async fn connection(&self, path: &PathBuf, told: &mut Option<String>) -> io::Result<String> {
        let socket = UnixSeqpacket::connect(path).await?;
        send(&socket, &ToTrace::Hello { v: VERSION, role: Role::Dispatch }).await?;
        let mut buffer = vec![0; MAX_MESSAGE];
        let welcome = timeout(WELCOME_TIME, receive(&socket, &mut buffer))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no reply to Hello"))??;
        let kernel = match welcome {
            Some(FromTrace::Welcome { kernel, .. }) => kernel,
            Some(FromTrace::Refused { why }) => return Err(io::Error::other(format!("rejected: {why}"))),
            Some(_) => return Err(io::Error::other("unexpected reply to Hello")),
            None => return Err(io::Error::other("connection closed by t3-trace")),
        };
        tracing::info!("kernel evidence from {}: {kernel}", path.display());
        *told = None;
        let (out, mut queue) = mpsc::channel(QUEUE);
        let backlog = self.lock().connected(out);
        for message in backlog {
            send(&socket, &message).await?;
        }
        let mut rounds = Rounds::new(Instant::now());
        loop {
            tokio::select! {
                message = queue.recv() => match message {
                    Some(message) => send(&socket, &message).await?,
                    None => return Ok("t3-trace does not read its socket".to_owned()),
                },
                // One at a time, so that records and questions need not wait for a whole round.
                pulses = rounds.message(|all| self.pulses(all)) => send(&socket, &pulses).await?,
                answer = receive(&socket, &mut buffer) => match answer? {
                    Some(FromTrace::Evidence { conn, facts }) => self.answered(&conn, facts),
                    Some(FromTrace::Refused { why }) => return Ok(format!("rejected: {why}")),
                    Some(FromTrace::WantPulses { ms }) => rounds.wanted(ms, Instant::now()),
                    Some(_) => {}
                    None => return Ok("connection closed by t3-trace".to_owned()),
                },
            }
        }
    }

    fn pulses(&self, all: bool) -> Vec<StatsReport> {
        let state = self.lock();
        live_reports::collect(state.sessions.values().map(|(who, live)| (&**who, &**live)), all)
    }

    fn answered(&self, conn: &str, facts: Box<KernelFacts>) {
        if let Some(tell) = self.lock().asked.remove(conn) {
            let _ = tell.send(facts);
        }
    }
}

impl State {
    /// Everything t3-trace must hear first; from now on messages go through `out`, after these.
    fn connected(&mut self, out: mpsc::Sender<ToTrace>) -> Vec<ToTrace> {
        self.out = Some(out);
        let watch = self.ports.clone().map(|(listen, serve)| ToTrace::Watch { listen, serve });
        let sessions = self.sessions.values().map(|(session, _)| ToTrace::Register(session.clone()));
        let mut backlog: Vec<_> = watch.into_iter().chain(sessions).collect();
        let now = clock::now();
        let fresh = self.undelivered.drain(..).filter(|(at, _)| now.saturating_sub(*at) < REMEMBER);
        backlog.extend(fresh.map(|(_, message)| message));
        backlog
    }

    /// `false` when there is no connection; a full queue ends it.
    fn send(&mut self, message: ToTrace) -> bool {
        let Some(out) = &self.out else { return false };
        match out.try_send(message) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(message) | mpsc::error::TrySendError::Closed(message)) => {
                self.out = None;
                if matches!(message, ToTrace::Done { .. }) {
                    self.remember(message);
                }
                false
            }
        }
    }

    fn remember(&mut self, message: ToTrace) {
        let now = clock::now();
        let old = |at: Nanos| now.saturating_sub(at) >= REMEMBER;
        while self.undelivered.len() >= REMEMBER_MOST
            || self.undelivered.front().is_some_and(|(at, _)| old(*at))
        {
            self.undelivered.pop_front();
        }
        self.undelivered.push_back((now, message));
    }
}

async fn send(socket: &UnixSeqpacket, message: &ToTrace) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    timeout(SEND_TIME, socket.send(&bytes))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "t3-trace does not read its socket"))??;
    Ok(())
}

/// `None` at the end of the connection. A message of a newer t3-trace that is not understood is
/// skipped.
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
