//! A WebSocket client on a raw socket, with control over every byte and over its end.
//!
//! One thread owns the socket (`driver`), so that an order such as "reset" takes effect
//! immediately: no other thread keeps the descriptor open. By default it behaves like a browser:
//! heartbeats, a reply to a Close frame, and a FIN after the server's FIN.

mod driver;
mod handshake;

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Barrier, Condvar, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    time::{Duration, Instant},
};

use crate::{
    error::{Result, TestError},
    frame, wait,
};

/// Timeout for every wait of a client.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Heartbeat message of a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ping {
    /// That of t3.
    #[default]
    Text,
    /// A Ping frame (RFC 6455 section 5.5.2), as other client libraries send.
    Frame,
}

/// Watchdog of t3's client by its version of effect (facts: t3 client, "What the client counts as
/// life, by version"): at a ping tick it sends Close 1000 without a reason in place of the ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watchdog {
    /// Up to 4.0.1: so many pings have no Pong.
    Pongs(u64),
    /// 4.0.2 to 4.0.4: no frame for longer than the period, whether a ping is unanswered or not.
    Frames,
    /// From 4.0.5: no frame since the last ping, which is a period old.
    FramesSincePing,
}

/// Connection and behaviour of a client.
#[derive(Debug)]
pub struct Config {
    /// Address of dispatch.
    pub address: SocketAddr,
    pub target: String,
    /// Further header fields, sent unchanged; they may be malformed.
    pub headers: Vec<(String, String)>,
    /// Period of the heartbeat; `None` sends none.
    pub heartbeat: Option<Duration>,
    pub ping: Ping,
    /// Timeout for the response to the upgrade; then the client closes its socket.
    pub open_timeout: Duration,
    /// The client waits here between connecting and its handshake.
    pub before_handshake: Option<Arc<Barrier>>,
    /// Offers permessage-deflate, as browsers do, and requires it.
    pub is_compressed: bool,
    /// `SO_RCVBUF` in bytes, set before connecting so that the window stays small.
    pub receive_buffer: Option<usize>,
    /// Network namespace of the socket (a descriptor of `/proc/PID/ns/net`).
    pub namespace: Option<OwnedFd>,
    /// Sends FIN after the server's FIN, as a browser does.
    pub closes_on_fin: bool,
}

impl Config {
    /// A healthy browser of this user.
    #[must_use]
    pub fn new(address: SocketAddr, user: &str) -> Self {
        Self {
            address,
            target: "/ws?wsTicket=secret".to_owned(),
            headers: vec![("X-authentik-username".to_owned(), user.to_owned())],
            heartbeat: Some(Duration::from_millis(200)),
            ping: Ping::Text,
            open_timeout: TIMEOUT,
            before_handshake: None,
            is_compressed: false,
            receive_buffer: None,
            namespace: None,
            closes_on_fin: true,
        }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// End of a client's connection, as seen on its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// FIN from the server.
    Fin,
    /// RST from the server.
    Reset,
    /// Another error.
    Errno(i32),
    /// By an order of the test.
    Ours,
}

/// What a client has received and sent so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Heartbeats sent.
    pub pings: u64,
    /// Heartbeats answered.
    pub pongs: u64,
    /// Other text and binary messages.
    pub messages: Vec<Vec<u8>>,
    /// The first Close frame: code and reason.
    pub close: Option<(Option<u16>, String)>,
    /// The watchdog has closed.
    pub gave_up: bool,
    /// Bytes of the stream read after the handshake.
    pub bytes: u64,
    /// The stream ended inside a frame.
    pub mid_frame: bool,
    pub ended: Option<Ended>,
}

/// An order for the thread that owns the socket.
#[derive(Debug)]
enum Act {
    Write(Vec<u8>),
    Heartbeat(Option<Duration>),
    Watchdog(Watchdog),
    DelayTick(Duration),
    Text(String),
    Reading(bool),
    Throttle(Option<u64>),
    Fin,
    Reset,
    Drop,
    Surrender(Sender<OwnedFd>),
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Client {
    acts: Sender<(Act, Sender<()>)>,
    shared: Arc<Shared>,
    /// Address of the client, as the server sees it.
    pub local: SocketAddr,
}

impl Client {
    /// Connects and opens the WebSocket.
    pub fn connect(config: Config) -> Result<Self> {
        let (acts, inbox) = mpsc::channel();
        let (opened, outcome) = mpsc::channel();
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        // The thread may move into a network namespace, which affects only this thread.
        std::thread::spawn(move || driver::run(config, &inbox, &opened, &theirs));
        let gone = |_| TestError::Unexpected {
            what: "an open client".to_owned(),
            got: "its thread has ended".to_owned(),
        };
        let local = outcome.recv().map_err(gone)??;
        Ok(Self { acts, shared, local })
    }

    /// Connects, and returns the HTTP status of the expected rejection.
    pub fn refused(config: Config) -> Result<u16> {
        match Self::connect(config) {
            Ok(_) => Err(TestError::Unexpected { what: "a rejection".to_owned(), got: "101".to_owned() }),
            Err(TestError::Unexpected { got, .. }) if got.starts_with("HTTP/1.") => {
                let status = got.split(' ').nth(1).and_then(|status| status.parse().ok());
                status.ok_or(TestError::Unexpected { what: "a status line".to_owned(), got })
            }
            Err(error) => Err(error),
        }
    }

    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `enough` holds.
    pub fn wait(&self, what: &str, limit: Duration, enough: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let limit = wait::scaled(limit);
        let deadline = Instant::now() + limit;
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while !enough(&seen) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(TestError::Timeout { what: format!("{what} (seen: {seen:?})"), after: limit });
            }
            let waited = self.shared.changed.wait_timeout(seen, left);
            (seen, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(seen.clone())
    }

    /// Waits for `n` more answered heartbeats.
    pub fn heartbeats(&self, n: u64) -> Result<()> {
        let have = self.seen().pongs;
        self.wait(&format!("{n} answered heartbeats"), TIMEOUT, |seen| seen.pongs >= have + n).map(drop)
    }

    /// Waits for the end of the connection.
    pub fn wait_end(&self) -> Result<Seen> {
        self.wait("the end of the client's connection", TIMEOUT, |seen| seen.ended.is_some())
    }

    fn act(&self, act: Act) {
        let (done, finished) = mpsc::channel();
        if self.acts.send((act, done)).is_ok() {
            // An error means that the connection has ended; see `Seen::ended`.
            let _ = finished.recv();
        }
    }

    /// Writes raw bytes.
    pub fn write(&self, bytes: Vec<u8>) {
        self.act(Act::Write(bytes));
    }

    pub fn text(&self, text: &str) {
        self.act(Act::Text(text.to_owned()));
    }

    /// Stops the heartbeat and sends a Close frame, then reads until the server closes.
    pub fn close(&self, code: Option<u16>, reason: &str) {
        self.act(Act::Heartbeat(None));
        self.write(frame::from_client(frame::opcode::CLOSE, &frame::close_payload(code, reason)));
    }

    /// Changes or stops the heartbeat.
    pub fn heartbeat(&self, period: Option<Duration>) {
        self.act(Act::Heartbeat(period));
    }

    /// Starts a watchdog.
    pub fn watchdog(&self, watchdog: Watchdog) {
        self.act(Act::Watchdog(watchdog));
    }

    /// Delays the next ping tick, as a busy page or a hidden tab does.
    pub fn delay_tick(&self, delay: Duration) {
        self.act(Act::DelayTick(delay));
    }

    /// Waits for the watchdog.
    pub fn wait_gave_up(&self) -> Result<Seen> {
        self.wait("the client's watchdog", TIMEOUT, |seen| seen.gave_up)
    }

    /// Stops or resumes reading; with a small receive buffer the TCP window closes soon.
    pub fn reading(&self, reading: bool) {
        self.act(Act::Reading(reading));
    }

    /// Reads up to this many bytes a second from now on, as over a slow line; `None`: all.
    pub fn throttle(&self, rate: Option<u64>) {
        self.act(Act::Throttle(rate));
    }

    /// Stops the heartbeat and sends FIN without a Close frame, then reads until the server closes.
    pub fn fin(&self) {
        self.act(Act::Heartbeat(None));
        self.act(Act::Fin);
    }

    /// Sends RST.
    pub fn reset(&self) {
        self.act(Act::Reset);
    }

    /// `close(2)`: RST with unread data, else FIN.
    pub fn drop_socket(&self) {
        self.act(Act::Drop);
    }

    /// Returns the socket, for another process; the client no longer uses it.
    pub fn surrender(&self) -> Result<OwnedFd> {
        let (give, take) = mpsc::channel();
        self.act(Act::Surrender(give));
        take.recv().map_err(|_| TestError::Unexpected {
            what: "an open connection".to_owned(),
            got: format!("{:?}", self.seen().ended),
        })
    }
}
