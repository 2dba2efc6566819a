//! Sessions through a proxy: their plan, their clients and their serve.
//!
//! A serve knows from the path of a request which session it belongs to, and from its socket which
//! connection of the proxy has it.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, sleep, sleep_until, timeout},
};

/// Heartbeats of all sessions: a masked and an unmasked frame of the same size each.
const PING: [u8; 21] = [0x81; 21];
const PONG: [u8; 17] = [0x81; 17];
const PERIOD: u64 = 3_000;
const READ: Duration = Duration::from_secs(30);

/// Numbers that look random.
#[derive(Debug, Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Heartbeats only: all of these sessions have the same traffic.
    Heartbeats,
    /// Heartbeats, and messages of serve of random sizes.
    Messages,
    /// No traffic.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    ClientFin,
    ClientRst,
    ServeFin,
    /// Client and serve at the same moment.
    Both,
}

/// One session; times in milliseconds from the start of the test.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    /// Address of its client, which no other session has.
    pub ip: Ipv4Addr,
    pub group: Group,
    pub end: End,
    pub opens: u64,
    pub ends: u64,
    /// Plain requests on its connection before the upgrade.
    pub plain: u64,
    pub phase: u64,
    pub seed: u64,
}

/// Sessions of one proxy: `concurrent` at a time; a quarter of the clients come again.
pub fn plan(concurrent: u64, network: u8, seed: u64) -> Vec<Session> {
    let mut numbers = Numbers(seed);
    let mut sessions = Vec::new();
    let mut add = |opens: u64, ends: u64| {
        let number = u32::try_from(sessions.len() + 1).unwrap();
        let group = match numbers.below(10) {
            0..4 => Group::Heartbeats,
            4..9 => Group::Messages,
            _ => Group::Silent,
        };
        let end = match numbers.below(20) {
            0..8 => End::ClientFin,
            8..12 => End::ClientRst,
            12..17 => End::ServeFin,
            _ => End::Both,
        };
        sessions.push(Session {
            ip: Ipv4Addr::from_bits(u32::from_be_bytes([127, network, 0, 0]) + number),
            group,
            end,
            opens,
            ends,
            plain: numbers.below(3),
            phase: numbers.below(PERIOD),
            seed: numbers.below(1 << 30),
        });
    };
    let mut times = Numbers(seed + 1);
    for client in 0..concurrent {
        let opens = times.below(4_000);
        if client % 4 == 0 {
            let ends = opens + 12_000 + times.below(4_000);
            add(opens, ends);
            add(ends + times.below(500), ends + 14_000 + times.below(4_000));
        } else {
            add(opens, opens + 22_000 + times.below(12_000));
        }
    }
    sessions
}

/// Begin of the traffic; set once the proxies and the daemon run.
pub type Start = Arc<OnceLock<Instant>>;

/// A serve, and the address of the proxy in each session.
#[derive(Debug)]
pub struct Serve {
    pub address: SocketAddr,
    pub connections: Arc<Mutex<HashMap<Ipv4Addr, SocketAddr>>>,
    /// Connections accepted since the start of the test.
    pub accepted: Arc<AtomicUsize>,
    /// Those of them that have ended.
    pub ended: Arc<AtomicUsize>,
}

impl Serve {
    pub async fn start(sessions: &[Session], start: Start) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sessions: Arc<HashMap<Ipv4Addr, Session>> =
            Arc::new(sessions.iter().map(|session| (session.ip, *session)).collect());
        let connections = Arc::<Mutex<HashMap<_, _>>>::default();
        let known = Arc::clone(&connections);
        let (accepted, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (accepts, ends) = (Arc::clone(&accepted), Arc::clone(&ended));
        tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let (sessions, known, ends) = (Arc::clone(&sessions), Arc::clone(&known), Arc::clone(&ends));
                let start = start.get().copied();
                let counted = usize::from(start.is_some_and(|start| Instant::now() >= start));
                accepts.fetch_add(counted, Ordering::Relaxed);
                tokio::spawn(async move {
                    serve(stream, from, &sessions, &known, start).await;
                    ends.fetch_add(counted, Ordering::Relaxed);
                });
            }
        });
        Self { address, connections, accepted, ended }
    }
}

async fn serve(
    mut stream: TcpStream,
    from: SocketAddr,
    sessions: &HashMap<Ipv4Addr, Session>,
    known: &Mutex<HashMap<Ipv4Addr, SocketAddr>>,
    start: Option<Instant>,
) {
    let _ = stream.set_nodelay(true);
    while let Some(head) = read_head(&mut stream).await {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if let Some(ip) = path.strip_prefix("/ws/") {
            let ip = ip.split('?').next().unwrap_or_default().parse().unwrap();
            known.lock().unwrap().insert(ip, from);
            let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            if let (Some(start), Ok(())) = (start, stream.write_all(answer.as_bytes()).await) {
                let _ = session_of_serve(stream, sessions[&ip], start).await;
            }
            return;
        }
        let body = path.strip_prefix("/plain/").and_then(|length| length.parse::<usize>().ok());
        let (status, length) = body.map_or(("403 Forbidden", 0), |length| ("200 OK", length));
        let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + length, b'x');
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// Answers heartbeats until the end.
async fn session_of_serve(mut stream: TcpStream, session: Session, start: Instant) -> std::io::Result<()> {
    let mut numbers = Numbers(session.seed);
    let far = Duration::from_secs(3_600);
    let mut message = match session.group {
        Group::Messages => Duration::from_millis(300 + numbers.below(4_000)),
        Group::Heartbeats | Group::Silent => far,
    };
    let mut next = Instant::now() + message;
    let ends = match session.end {
        End::ServeFin | End::Both => start + Duration::from_millis(session.ends),
        End::ClientFin | End::ClientRst => Instant::now() + far,
    };
    let mut buffer = vec![0; 4_096];
    let mut received = 0;
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => {
                let length = read?;
                if length == 0 {
                    return Ok(());
                }
                received += length;
                while received >= PING.len() {
                    received -= PING.len();
                    stream.write_all(&PONG).await?;
                }
            }
            () = sleep_until(next) => {
                let length = usize::try_from(20 + numbers.below(3_000)).unwrap();
                stream.write_all(&vec![0x82; length]).await?;
                message = Duration::from_millis(300 + numbers.below(4_000));
                next = Instant::now() + message;
            }
            () = sleep_until(ends) => return Ok(()),
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(READ, stream.read_u8()).await.ok()?.ok()?);
    }
    String::from_utf8(head).ok()
}

async fn connect(proxy: SocketAddr, ip: Ipv4Addr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip, 0).into()).unwrap();
    let stream = socket.connect(proxy).await.ok()?;
    let _ = stream.set_nodelay(true);
    Some(stream)
}

/// A request with an answer of this many bytes, on a connection that stays open.
pub async fn plain(stream: &mut TcpStream, length: u64) -> Option<()> {
    let request = format!("GET /plain/{length} HTTP/1.1\r\nHost: t3.test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let head = read_head(stream).await?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut body = vec![0; usize::try_from(length).unwrap()];
    timeout(READ, stream.read_exact(&mut body)).await.ok()?.ok().map(drop)
}

/// The client of a session; `None` if it could not be opened.
pub async fn client(proxy: SocketAddr, session: Session, start: Instant) -> Option<()> {
    sleep_until(start + Duration::from_millis(session.opens)).await;
    let mut stream = connect(proxy, session.ip).await?;
    let mut numbers = Numbers(session.seed ^ 0x5555);
    for _ in 0..session.plain {
        plain(&mut stream, 1 + numbers.below(500)).await?;
        sleep(Duration::from_millis(numbers.below(1_000))).await;
    }
    // All requests have one size: only traffic distinguishes sessions.
    let path = format!("{:x<20}", format!("{}?", session.ip));
    let request = format!(
        "GET /ws/{path} HTTP/1.1\r\nHost: t3.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let head = read_head(&mut stream).await?;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let far = Instant::now() + Duration::from_secs(3_600);
    let mut beat = match session.group {
        Group::Silent => far,
        Group::Heartbeats | Group::Messages => Instant::now() + Duration::from_millis(session.phase),
    };
    let ends = match session.end {
        End::ServeFin => far,
        End::Both | End::ClientFin | End::ClientRst => start + Duration::from_millis(session.ends),
    };
    let mut buffer = vec![0; 4_096];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => {
                if read.ok()? == 0 {
                    return Some(());
                }
            }
            () = sleep_until(beat) => {
                stream.write_all(&PING).await.ok()?;
                beat += Duration::from_millis(PERIOD);
            }
            () = sleep_until(ends) => {
                if session.end == End::ClientRst {
                    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                }
                return Some(());
            }
        }
    }
}

/// Plain requests on a connection that stays open, which use the proxy's pool.
pub async fn requests(proxy: SocketAddr, seed: u64, start: Instant, until: Instant) {
    sleep_until(start).await;
    let mut numbers = Numbers(seed);
    while Instant::now() < until {
        let Some(mut stream) = connect(proxy, Ipv4Addr::LOCALHOST).await else { return };
        for _ in 0..20 {
            if plain(&mut stream, 1 + numbers.below(2_000)).await.is_none() || Instant::now() >= until {
                break;
            }
            sleep(Duration::from_millis(100 + numbers.below(1_500))).await;
        }
    }
}
