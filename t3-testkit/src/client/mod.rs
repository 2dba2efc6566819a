//! A WebSocket client on a bare socket, with control over every byte and over the way it dies.
//!
//! One thread owns the socket (`driver`), so that an order such as "reset" takes effect at once: no
//! other thread keeps the descriptor alive. Behaves like a browser unless told otherwise:
//! heartbeats, an answer to a close frame, and after the server's FIN it closes too.

mod driver;
mod handshake;

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    time::{Duration, Instant},
};

use crate::{
    error::{Result, TestError},
    frame, wait,
};

/// How long anything a client waits for may take.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How a client connects and behaves.
#[derive(Debug)]
pub struct Config {
    /// Where dispatch listens.
    pub address: SocketAddr,
    /// Request target.
    pub target: String,
    /// Header fields besides those of the handshake; bytes as given, so that they may be malformed.
    pub headers: Vec<(String, String)>,
    /// Period of the heartbeat; `None` sends none.
    pub heartbeat: Option<Duration>,
    /// `SO_RCVBUF` in bytes, set before connecting so that the window stays small.
    pub receive_buffer: Option<usize>,
    /// Network namespace (a descriptor of `/proc/PID/ns/net`) in which the socket is made.
    pub namespace: Option<OwnedFd>,
    /// Closes its own side when the server's FIN comes, as a browser does.
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
            receive_buffer: None,
            namespace: None,
            closes_on_fin: true,
        }
    }

    /// With one more header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// How a client's connection ended, as its socket told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// FIN from the server, read to the end.
    Fin,
    /// RST from the server.
    Reset,
    /// Another error.
    Errno(i32),
    /// By an order of the test.
    Ours,
}

/// What a client has seen so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Heartbeats sent.
    pub pings: u64,
    /// Heartbeats answered.
    pub pongs: u64,
    /// Other text and binary messages.
    pub messages: Vec<Vec<u8>>,
    /// The first close frame: code and reason.
    pub close: Option<(Option<u16>, String)>,
    /// Bytes of the stream read after the handshake.
    pub bytes: u64,
    /// The stream ended inside a frame.
    pub mid_frame: bool,
    /// How it ended.
    pub ended: Option<Ended>,
}

/// What the test tells the thread that owns the socket.
#[derive(Debug)]
enum Act {
    Write(Vec<u8>),
    Heartbeat(Option<Duration>),
    Reading(bool),
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
    /// Our own address, as the server sees it.
    pub local: SocketAddr,
}

impl Client {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// [`TestError::Unexpected`] with the first line of any other answer than 101; IO errors.
    pub fn connect(config: Config) -> Result<Self> {
        let (acts, inbox) = mpsc::channel();
        let (opened, outcome) = mpsc::channel();
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        // The thread may move into a network namespace, which only concerns itself.
        std::thread::spawn(move || driver::run(config, &inbox, &opened, &theirs));
        let gone = |_| TestError::Unexpected {
            what: "an open client".to_owned(),
            got: "its thread died".to_owned(),
        };
        let local = outcome.recv().map_err(gone)??;
        Ok(Self { acts, shared, local })
    }

    /// Opens, expecting to be refused; gives the HTTP status.
    ///
    /// # Errors
    /// It was accepted, or there was no HTTP answer.
    pub fn refused(config: Config) -> Result<u16> {
        match Self::connect(config) {
            Ok(_) => Err(TestError::Unexpected { what: "a refusal".to_owned(), got: "101".to_owned() }),
            Err(TestError::Unexpected { got, .. }) if got.starts_with("HTTP/1.") => {
                let status = got.split(' ').nth(1).and_then(|status| status.parse().ok());
                status.ok_or(TestError::Unexpected { what: "a status line".to_owned(), got })
            }
            Err(error) => Err(error),
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until what was seen satisfies `enough`.
    ///
    /// # Errors
    /// [`TestError::Timeout`] after `limit`.
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
    ///
    /// # Errors
    /// [`TestError::Timeout`].
    pub fn heartbeats(&self, n: u64) -> Result<()> {
        let have = self.seen().pongs;
        self.wait(&format!("{n} answered heartbeats"), TIMEOUT, |seen| seen.pongs >= have + n).map(drop)
    }

    /// Waits for the end of the connection.
    ///
    /// # Errors
    /// [`TestError::Timeout`].
    pub fn wait_end(&self) -> Result<Seen> {
        self.wait("the end of the client's connection", TIMEOUT, |seen| seen.ended.is_some())
    }

    fn act(&self, act: Act) {
        let (done, finished) = mpsc::channel();
        if self.acts.send((act, done)).is_ok() {
            // An error means that the connection has ended meanwhile; `seen` tells how.
            let _ = finished.recv();
        }
    }

    /// Writes bytes as they are.
    pub fn write(&self, bytes: Vec<u8>) {
        self.act(Act::Write(bytes));
    }

    /// Sends a text message.
    pub fn text(&self, text: &str) {
        self.write(frame::from_client(frame::opcode::TEXT, text.as_bytes()));
    }

    /// Sends a close frame and goes on as a browser does: reads until the server closes. Stops the
    /// heartbeat.
    pub fn close(&self, code: Option<u16>, reason: &str) {
        self.act(Act::Heartbeat(None));
        self.write(frame::from_client(frame::opcode::CLOSE, &frame::close_payload(code, reason)));
    }

    /// Changes or stops the heartbeat.
    pub fn heartbeat(&self, period: Option<Duration>) {
        self.act(Act::Heartbeat(period));
    }

    /// Stops or resumes reading from the socket: with a small receive buffer the window closes
    /// soon.
    pub fn reading(&self, reading: bool) {
        self.act(Act::Reading(reading));
    }

    /// FIN without a close frame; goes on reading until the server ends too. Stops the heartbeat.
    pub fn fin(&self) {
        self.act(Act::Heartbeat(None));
        self.act(Act::Fin);
    }

    /// RST.
    pub fn reset(&self) {
        self.act(Act::Reset);
    }

    /// `close(2)`: RST if there is something unread, else FIN.
    pub fn drop_socket(&self) {
        self.act(Act::Drop);
    }

    /// Gives the socket away, for a process that is to die with it. The client sees no more of it.
    ///
    /// # Errors
    /// The connection has ended already.
    pub fn surrender(&self) -> Result<OwnedFd> {
        let (give, take) = mpsc::channel();
        self.act(Act::Surrender(give));
        take.recv().map_err(|_| TestError::Unexpected {
            what: "an open connection".to_owned(),
            got: format!("{:?}", self.seen().ended),
        })
    }
}
