//! A daemon in this process with a kernel side that the test writes, a journald that the test
//! reads, and a peer of its socket.

#[path = "../support/daemon.rs"]
mod daemon;

use std::{
    collections::{HashMap, VecDeque},
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use daemon::RunningDaemon;
use t3_record::{
    evidence::{KernelFacts, SocketFacts},
    vocabulary::KernelSource,
    wire::{FromTrace, Hook, Leg, Role, Session, Status, Table, ToTrace, VERSION},
};
use t3_trace_daemon::{direct::WatchedPort, options::Options};
use t3_trace_host::{
    clock,
    kernel::{
        ClosedConnection, ConnectionsOf, Generation, Inventory, Loss, Outgoing, ProcessFacts, ServeTuple,
        Unreported,
        view::{ConnectionSource, ConnectionStream, EventStream, KernelView},
    },
};
use tokio_seqpacket::UnixSeqpacket;

/// Facts of the fake kernel side.
#[derive(Default)]
pub struct Facts {
    pub sockets: HashMap<u64, SocketFacts>,
    pub serve_ends: HashMap<ServeTuple, SocketFacts>,
    pub processes: HashMap<u32, ProcessFacts>,
    pub watched: (Vec<u16>, Vec<u16>),
    /// Ports whose closed connections are reported, with the minimum age.
    pub watched_connections: Vec<ConnectionsOf>,
    closed: VecDeque<ClosedConnection>,
    reports: Option<UnixStream>,
    pub unreported: Unreported,
    pub lost: u64,
    /// Skipped program runs.
    pub missed: u64,
    /// Number of times that the losses were read.
    pub loss_reads: u64,
}

#[derive(Clone, Default)]
pub struct FakeKernel(pub Arc<Mutex<Facts>>);

impl FakeKernel {
    pub fn with<T>(&self, change: impl FnOnce(&mut Facts) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }
}

impl FakeKernel {
    /// Reports a closed connection.
    pub fn close(&self, connection: ClosedConnection) {
        self.with(|facts| {
            facts.closed.push_back(connection);
            // A full one is readable, too.
            let _ = facts.reports.as_mut().unwrap().write(b"x");
        });
    }
}

/// Closed connections; readable while there are some.
struct Closed(FakeKernel, UnixStream);

impl AsFd for Closed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.1.as_fd()
    }
}

impl ConnectionSource for Closed {
    fn next_connection(&mut self) -> Option<ClosedConnection> {
        let _ = self.1.read(&mut [0; 64]);
        self.0.with(|facts| facts.closed.pop_front())
    }
}

impl KernelView for FakeKernel {
    fn watch(&mut self, listen: &[u16], serve: &[u16], _: &[u32]) -> Result<(), String> {
        self.with(|facts| facts.watched = (listen.to_vec(), serve.to_vec()));
        Ok(())
    }
    fn watch_connections(&mut self, ports: &[ConnectionsOf], _: &Outgoing) -> Result<(), String> {
        self.with(|facts| facts.watched_connections = ports.to_vec());
        Ok(())
    }
    fn take_connections(&mut self) -> Option<ConnectionStream> {
        let (reader, writer) = UnixStream::pair().unwrap();
        reader.set_nonblocking(true).unwrap();
        writer.set_nonblocking(true).unwrap();
        self.with(|facts| facts.reports = Some(writer));
        Some(ConnectionStream::new(Closed(self.clone(), reader)))
    }
    fn unreported(&self) -> Unreported {
        self.with(|facts| facts.unreported)
    }
    fn serve_generation(&self, _: &ServeTuple) -> Generation {
        Generation::UNKNOWN
    }
    fn socket(&self, cookie: u64) -> Option<SocketFacts> {
        self.with(|facts| facts.sockets.get(&cookie).cloned())
    }
    fn serve_end(&self, tuple: &ServeTuple, _: Generation) -> Option<SocketFacts> {
        self.with(|facts| facts.serve_ends.get(tuple).cloned())
    }
    fn process(&self, tgid: u32) -> Option<ProcessFacts> {
        self.with(|facts| facts.processes.get(&tgid).cloned())
    }
    fn take_events(&mut self) -> Option<EventStream> {
        None
    }
    fn hooks(&self) -> Vec<Hook> {
        vec![Hook { name: "fake".to_owned(), attached: Some("fake".to_owned()), why: None }]
    }
    fn source(&self) -> KernelSource {
        KernelSource::Tracepoint
    }
    fn lost(&self) -> Loss {
        self.with(|facts| {
            facts.loss_reads += 1;
            Loss { events: facts.lost, missed: facts.missed, ..Loss::default() }
        })
    }
    fn inventory(&self) -> Inventory {
        let table = Table { name: "FAKE".to_owned(), size: 10, used: Some(3), forgets: false };
        Inventory { tables: vec![table], events: Some(81), missing: vec!["a field".to_owned()] }
    }
}

pub struct Daemon {
    pub kernel: FakeKernel,
    pub socket: PathBuf,
    /// File with the metrics, written at the start.
    pub metrics: PathBuf,
    journald: UnixDatagram,
    daemon: RunningDaemon,
}

impl Daemon {
    pub async fn start() -> Self {
        Self::watching(Vec::new()).await
    }

    /// With ports whose direct connections are recorded.
    pub async fn watching(watch: Vec<WatchedPort>) -> Self {
        let kernel = FakeKernel::default();
        let mut metrics = PathBuf::new();
        let change = |options: &mut Options| {
            metrics = options.state_dir.with_file_name("t3-trace.prom");
            options.metrics_file = Some(metrics.clone());
            options.metrics_interval = Duration::from_millis(50);
            options.watch = watch;
        };
        let (daemon, journald) = RunningDaemon::start(Box::new(kernel.clone()), change).await;
        journald.set_nonblocking(true).unwrap();
        Self { kernel, socket: daemon.socket.clone(), metrics, journald, daemon }
    }

    pub async fn connect(&self) -> Peer {
        Peer(UnixSeqpacket::connect(&self.socket).await.unwrap())
    }

    pub async fn dispatch(&self) -> Peer {
        self.connect().await.greet(Role::Dispatch).await
    }

    pub async fn subscriber(&self) -> Peer {
        self.connect().await.greet(Role::Subscriber).await
    }

    /// Fields of the next record; `None` if none is written in time.
    pub async fn written(&self, timeout: Duration) -> Option<HashMap<String, String>> {
        let mut buffer = vec![0; 65536];
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            if let Ok(length) = self.journald.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let fields = text.lines().filter_map(|line| line.split_once('='));
                return Some(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
            }
            if tokio::time::Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops it; returns the number of records that it has written and nobody has read.
    pub async fn stop_and_count(self) -> usize {
        let (journald, has_ended) = (self.journald, Arc::<AtomicBool>::default());
        let ended = Arc::clone(&has_ended);
        let counting = tokio::task::spawn_blocking(move || {
            let mut count = 0;
            loop {
                let is_last = ended.load(Ordering::Relaxed);
                while journald.recv(&mut [0; 64]).is_ok() {
                    count += 1;
                }
                if is_last {
                    return count;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        self.daemon.stop().await;
        has_ended.store(true, Ordering::Relaxed);
        counting.await.unwrap()
    }

    pub async fn stop(self) {
        self.daemon.stop().await;
    }
}

/// Waits for a condition.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("timed out waiting for: {what}");
}

pub struct Peer(pub UnixSeqpacket);

impl Peer {
    async fn greet(self, role: Role) -> Self {
        self.send(&ToTrace::Hello { v: VERSION, role }).await;
        let welcome = self.receive().await;
        assert_eq!(
            welcome,
            Some(FromTrace::Welcome {
                v: VERSION,
                kernel: KernelSource::Tracepoint,
                sessions: true,
                ending: true,
                kept: true,
            })
        );
        self
    }

    pub async fn send(&self, message: &ToTrace) {
        self.0.send(&serde_json::to_vec(message).unwrap()).await.unwrap();
    }

    /// Next message; `None` if the daemon closed the connection.
    pub async fn receive(&self) -> Option<FromTrace> {
        let mut buffer = vec![0; 65536];
        let received = tokio::time::timeout(Duration::from_secs(20), self.0.recv(&mut buffer)).await;
        let received = received.expect("the daemon says something or closes");
        let length = received.map_or(0, |message| message.bytes_read());
        (length > 0).then(|| serde_json::from_slice(&buffer[..length]).unwrap())
    }

    pub async fn refused(&self) -> String {
        let Some(FromTrace::Refused { why }) = self.receive().await else { panic!("not refused") };
        assert_eq!(self.receive().await, None, "closed after the refusal");
        why
    }

    pub async fn ask(&self, conn: &str) -> KernelFacts {
        self.send(&ToTrace::Ask { conn: conn.to_owned() }).await;
        match self.receive().await {
            Some(FromTrace::Evidence { conn: about, facts }) if about == conn => *facts,
            other => panic!("{other:?}"),
        }
    }

    /// Status of a subscriber that has not read the records before it.
    pub async fn status_between_records(&self) -> Status {
        self.send(&ToTrace::Status).await;
        loop {
            match self.receive().await {
                Some(FromTrace::Status(status)) => return *status,
                Some(FromTrace::Closed { .. } | FromTrace::Journal(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn status(&self) -> Status {
        self.send(&ToTrace::Status).await;
        match self.receive().await {
            Some(FromTrace::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }
}

/// A session with cookies `2n` (down) and `2n + 1` (up).
pub fn session(n: u16, serve_port: u16) -> Session {
    let leg = |cookie, local: String, remote: String| Leg {
        cookie,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
    };
    let cookie = u64::from(n) * 2;
    Session {
        conn: format!("conn-{n}"),
        user: "wizard".to_owned(),
        ip: "192.0.2.7".to_owned(),
        ray: Some("8f00".to_owned()),
        opened_at: Some(clock::monotonic()),
        down: Some(leg(cookie, "127.0.0.1:3780".to_owned(), format!("127.0.0.2:{n}"))),
        up: Some(leg(cookie + 1, format!("127.0.0.1:{n}"), format!("127.0.0.1:{serve_port}"))),
        serve_port,
        kept: false,
        resumed: 0,
    }
}

/// serve's end of that session.
pub fn serve_end(session: &Session) -> ServeTuple {
    let up = session.up.unwrap();
    ServeTuple::mirror(up.local, up.remote)
}
