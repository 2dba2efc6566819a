//! Sessions with traffic: clients, and a serve in the same process, so that each end knows what the
//! other one has sent.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::{Semaphore, oneshot, watch},
    time::timeout,
};

use super::{
    checker::Script,
    content::{Direction, Sender},
    peer::{self, EndReport, Kind, Pace, Role, Silence},
    report::SessionReport,
};
use crate::{
    error::{Attempt, Result, TestError},
    handshake, wait,
};

/// Timeout for an opening, and for the ends of all sessions.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Openings at the same time.
const AT_ONCE: usize = 32;
/// Maximum length of a head.
const HEAD_LIMIT: usize = 16 << 10;

/// What the serve needs for a session, until it has begun.
type Waiting = HashMap<u32, (Role, oneshot::Sender<EndReport>)>;

/// A session from the test's point of view.
#[derive(Debug)]
struct Session {
    number: u32,
    kind: Kind,
    client: oneshot::Receiver<EndReport>,
    serve: oneshot::Receiver<EndReport>,
}

/// Clients and serve, with their threads.
#[derive(Debug)]
pub struct Traffic {
    runtime: Runtime,
    waiting: Arc<Mutex<Waiting>>,
    finish: watch::Sender<bool>,
    sessions: Vec<Session>,
    /// Clients whose streams have not ended.
    open: Arc<AtomicUsize>,
    /// Of the clients of kind [`Kind::Clock`].
    pub silence: Silence,
    /// Of the sessions that are opened from now on.
    pub pace: Pace,
    seed: u64,
}

impl Traffic {
    /// Listens as serve on these ports of 127.0.0.1.
    ///
    /// # Errors
    /// A port is not free, or no threads.
    pub fn listen(ports: &[u16], seed: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.attempt(|| "start the threads of the peers".to_owned())?;
        let waiting = Arc::<Mutex<Waiting>>::default();
        for port in ports {
            let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, *port)));
            let listener = listener.attempt(|| format!("listen as serve on port {port}"))?;
            runtime.spawn(accept(listener, Arc::clone(&waiting)));
        }
        Ok(Self {
            runtime,
            waiting,
            finish: watch::Sender::new(false),
            sessions: Vec::new(),
            open: Arc::default(),
            silence: Silence::default(),
            pace: Pace::default(),
            seed,
        })
    }

    /// Opens a session of each kind, for these users in turn, and waits for all 101.
    ///
    /// # Errors
    /// One does not open.
    pub fn open(&mut self, address: SocketAddr, users: &[&str], kinds: &[Kind]) -> Result<()> {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut opening = Vec::with_capacity(kinds.len());
        for (kind, user) in kinds.iter().zip(users.iter().cycle()) {
            let number = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
            let (up, down) = (Script::default(), Script::default());
            let role = |sender, own: &Script, other: &Script| Role {
                kind: *kind,
                direction: Direction { session: number, sender },
                own: own.clone(),
                other: other.clone(),
                finish: self.finish.subscribe(),
                silence: self.silence.clone(),
                pace: self.pace,
                seed: self.seed,
            };
            let (client, serve) = (role(Sender::Client, &up, &down), role(Sender::Serve, &down, &up));
            let (report_client, client_end) = oneshot::channel();
            let (report_serve, serve_end) = oneshot::channel();
            lock(&self.waiting).insert(number, (serve, report_serve));
            self.sessions.push(Session { number, kind: *kind, client: client_end, serve: serve_end });
            let (opened, is_opened) = oneshot::channel();
            opening.push((number, is_opened));
            let (places, open) = (Arc::clone(&places), Arc::clone(&self.open));
            let user = (*user).to_owned();
            self.runtime.spawn(async move {
                let place = places.acquire().await;
                match shake_hands(address, &user, number).await {
                    Ok((stream, begin)) => {
                        drop(place);
                        open.fetch_add(1, Ordering::SeqCst);
                        let _ = opened.send(Ok(()));
                        let report = peer::run(stream, begin, client).await;
                        open.fetch_sub(1, Ordering::SeqCst);
                        let _ = report_client.send(report);
                    }
                    Err(error) => drop(opened.send(Err(error.to_string()))),
                }
            });
        }
        for (number, opened) in opening {
            let what = || format!("101 for session {number}");
            let opened = self.runtime.block_on(async { timeout(wait::scaled(TIMEOUT), opened).await });
            match opened {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(got))) => return Err(TestError::Unexpected { what: what(), got }),
                _ => return Err(TestError::Timeout { what: what(), after: TIMEOUT }),
            }
        }
        Ok(())
    }

    /// Sessions whose client has not seen the end.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Ends all sessions in order, and returns what both ends of each have seen.
    #[must_use]
    pub fn finish(self) -> Vec<SessionReport> {
        self.finish.send_replace(true);
        self.ends()
    }

    /// Waits until all sessions have ended without an act of a peer.
    #[must_use]
    pub fn wait_ends(self) -> Vec<SessionReport> {
        self.ends()
    }

    fn ends(self) -> Vec<SessionReport> {
        let deadline = Instant::now() + wait::scaled(TIMEOUT);
        let reports = self.runtime.block_on(async {
            let mut reports = Vec::with_capacity(self.sessions.len());
            for session in self.sessions {
                let client = within(deadline, session.client).await;
                let serve = within(deadline, session.serve).await;
                reports.push(SessionReport { session: session.number, kind: session.kind, client, serve });
            }
            reports
        });
        self.runtime.shutdown_background();
        reports
    }
}

/// The report, if it comes in time.
async fn within(deadline: Instant, report: oneshot::Receiver<EndReport>) -> Option<EndReport> {
    tokio::time::timeout_at(deadline.into(), report).await.ok()?.ok()
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Value of `Cf-Ray` of a session, which its record contains.
fn ray(number: u32) -> String {
    format!("restart-{number}")
}

async fn shake_hands(address: SocketAddr, user: &str, number: u32) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).await?;
    let ray = ray(number);
    let fields = [("X-authentik-username", user), ("X-Forwarded-For", "203.0.113.7"), ("Cf-Ray", &ray)];
    let request = handshake::request(&format!("/ws?session={number}"), fields);
    stream.write_all(request.as_bytes()).await?;
    let (head, rest) = read_head(&mut stream).await?;
    if handshake::opens(&head) { Ok((stream, rest)) } else { Err(io::Error::other(head)) }
}

/// Reads a head; returns it and the bytes after it.
async fn read_head(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if let Some(end) = handshake::head_length(&head) {
            let rest = head.split_off(end);
            return Ok((String::from_utf8_lossy(&head).into_owned(), rest));
        }
        if stream.read_buf(&mut head).await? == 0 || head.len() > HEAD_LIMIT {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn accept(listener: TcpListener, waiting: Arc<Mutex<Waiting>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, Arc::clone(&waiting)))),
            // Too many descriptors; the openings time out.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// One connection to serve; anything but an upgrade of a known session ends it.
async fn serve(mut stream: TcpStream, waiting: Arc<Mutex<Waiting>>) -> Option<()> {
    let (head, rest) = read_head(&mut stream).await.ok()?;
    let number = head.split_once("session=")?.1.split([' ', '&']).next()?.parse().ok()?;
    let key = handshake::field(&head, "sec-websocket-key")?;
    let (role, report) = lock(&waiting).remove(&number)?;
    stream.write_all(handshake::response(key).as_bytes()).await.ok()?;
    report.send(peer::run(stream, rest, role).await).ok()
}
