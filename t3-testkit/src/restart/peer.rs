//! One end of a session: sends its frames, and checks those of the other end.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
};

use super::{
    checker::{Checker, Script},
    content::{Direction, Frame, Sender},
    tally::Tally,
};
use crate::chaos::plan::Rng;

/// Status code of every Close frame of the peers: normal closure.
pub const CLOSE: u16 = 1000;
/// One in so many messages is large.
const LARGE_EVERY: u64 = 24;
/// Messages that a half-closed client sends before its FIN.
const BEFORE_FIN: u64 = 5;
/// Period of heartbeats of sessions with traffic.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Period of [`Kind::Clock`].
const TICK: Duration = Duration::from_millis(2);

/// Behaviour of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Both ends send messages of all sizes, the client also heartbeats.
    Both,
    /// The client sends FIN after some messages; serve sends until the end.
    HalfClosed,
    /// The client does not read until the end; serve sends as much as it can.
    Blocked,
    /// No frame until the end.
    Idle,
    /// Heartbeats in quick succession, which show for how long nothing is relayed.
    Clock,
}

impl Kind {
    /// `count` sessions with traffic: every tenth is half-closed, one has a blocked reader, one
    /// shows the time without relaying.
    #[must_use]
    pub fn mixed(count: usize) -> Vec<Self> {
        let kind = |number: usize| match number {
            0 => Self::Clock,
            1 => Self::Blocked,
            number if number % 10 == 5 => Self::HalfClosed,
            _ => Self::Both,
        };
        (0..count).map(kind).collect()
    }

    /// Mean pause between two messages of this sender; `None`: it sends none.
    fn pause(self, sender: Sender, pace: Pace) -> Option<Duration> {
        match (self, sender) {
            (Self::Both, _) | (Self::HalfClosed, Sender::Serve) => {
                Some(Duration::from_millis(60) * pace.messages)
            }
            (Self::HalfClosed, Sender::Client) => Some(Duration::from_millis(2)),
            (Self::Blocked, Sender::Serve) => Some(Duration::from_millis(10)),
            (Self::Blocked, Sender::Client) => Some(Duration::from_millis(100) * pace.messages),
            (Self::Idle | Self::Clock, _) => None,
        }
    }

    fn heartbeat(self, pace: Pace) -> Option<Duration> {
        match self {
            Self::Both | Self::Blocked => Some(HEARTBEAT * pace.heartbeats),
            Self::Clock => Some(TICK * pace.heartbeats),
            Self::HalfClosed | Self::Idle => None,
        }
    }
}

/// Factors of the times between frames, for a host that cannot relay as many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between messages that are not heartbeats.
    pub messages: u32,
    pub heartbeats: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { messages: 1, heartbeats: 1 }
    }
}

/// How the stream of the other end ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    Fin,
    Reset,
}

/// Observations of one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndReport {
    /// Complete frames that the socket accepted.
    pub sent: Tally,
    pub received: Tally,
    /// Why a write failed.
    pub send_error: Option<String>,
    /// `None`: a wrong byte.
    pub end: Option<StreamEnd>,
    /// The Close frame of the other end arrived.
    pub is_closed: bool,
    /// Code of a Close frame that the other end did not send.
    pub inserted_close: Option<Option<u16>>,
    /// Bytes that the other end did not send, from such a Close frame on.
    pub inserted_bytes: usize,
    /// The stream ended inside a frame.
    pub is_inside_frame: bool,
    /// The first wrong byte.
    pub wrong: Option<String>,
    /// Frames of the other end that did not arrive.
    pub missing_frames: usize,
}

/// Longest time in microseconds between two frames that the client of a clock received.
#[derive(Debug, Clone, Default)]
pub struct Silence(Arc<AtomicU64>);

impl Silence {
    /// Returns the longest time, and begins again.
    pub fn take(&self) -> Duration {
        Duration::from_micros(self.0.swap(0, Ordering::SeqCst))
    }

    fn note(&self, silence: Duration) {
        let silence = u64::try_from(silence.as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_max(silence, Ordering::SeqCst);
    }
}

/// What an end needs beside its socket.
#[derive(Debug, Clone)]
pub struct Role {
    pub kind: Kind,
    /// The direction in which it sends.
    pub direction: Direction,
    /// The frames that it sends.
    pub own: Script,
    /// The frames of the other end.
    pub other: Script,
    /// Becomes true when all sessions are to end.
    pub finish: watch::Receiver<bool>,
    pub silence: Silence,
    pub pace: Pace,
    pub seed: u64,
}

/// State of a session shared by the two halves of an end.
#[derive(Debug, Default)]
struct Seen {
    is_closed: AtomicBool,
    is_ended: AtomicBool,
}

/// Runs an end until both streams have ended. `begin`: bytes after the head of the handshake.
pub async fn run(stream: TcpStream, begin: Vec<u8>, role: Role) -> EndReport {
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (orders, replies) = mpsc::unbounded_channel();
    let (changed, changes) = watch::channel(());
    let seen = Arc::new(Seen::default());
    let mut sending =
        Sending { writer, role: role.clone(), tally: Tally::default(), seen: Arc::clone(&seen) };
    let receiving = receive(reader, begin, &role, &seen, orders, changed);
    let (sent, mut report) = tokio::join!(sending.run(replies, changes), receiving);
    report.send_error = sent.err().map(|error| error.to_string());
    report.sent = sending.tally;
    report
}

struct Sending {
    writer: OwnedWriteHalf,
    role: Role,
    tally: Tally,
    seen: Arc<Seen>,
}

impl Sending {
    async fn run(
        &mut self,
        mut replies: mpsc::UnboundedReceiver<Frame>,
        mut changes: watch::Receiver<()>,
    ) -> io::Result<()> {
        let sender = self.role.direction.sender;
        let (kind, pace) = (self.role.kind, self.role.pace);
        let mut finish = self.role.finish.clone();
        let mut rng = Rng(self.role.seed ^ (u64::from(self.role.direction.session) << 8) ^ sender as u64);
        let mut pause = || {
            let mean = u64::try_from(kind.pause(sender, pace)?.as_micros()).ok()?;
            Some(Instant::now() + Duration::from_micros(mean / 2 + rng.below(mean)))
        };
        let (mut message, mut number) = (pause(), 0);
        let heartbeat = kind.heartbeat(pace).filter(|_| sender == Sender::Client);
        let mut beat = heartbeat.map(|period| Instant::now() + period);
        while !self.is_done(*finish.borrow()) {
            tokio::select! {
                reply = replies.recv() => match reply {
                    Some(reply) => self.send(reply).await?,
                    // The other half has ended.
                    None => break,
                },
                changed = finish.changed() => if changed.is_err() { break },
                _ = changes.changed() => {}
                () = at(message) => {
                    let is_large = (number + u64::from(self.role.direction.session)).is_multiple_of(LARGE_EVERY)
                        || (kind == Kind::Blocked && sender == Sender::Serve);
                    self.send(if is_large { Frame::Large(number) } else { Frame::Message(number) }).await?;
                    number += 1;
                    message = pause();
                    if kind == Kind::HalfClosed && sender == Sender::Client && number == BEFORE_FIN {
                        return self.writer.shutdown().await;
                    }
                }
                () = at(beat) => {
                    self.send(Frame::Ping).await?;
                    beat = heartbeat.map(|period| Instant::now() + period);
                }
            }
        }
        if !self.seen.is_ended.load(Ordering::SeqCst) || kind == Kind::HalfClosed {
            while let Ok(reply) = replies.try_recv() {
                self.send(reply).await?;
            }
            self.send(Frame::Close(CLOSE)).await?;
        }
        if sender == Sender::Client {
            // RFC 6455 section 7.1.1: the server ends the connection first.
            while !self.seen.is_ended.load(Ordering::SeqCst) {
                if changes.changed().await.is_err() {
                    break;
                }
            }
        }
        self.writer.shutdown().await
    }

    /// Whether this end sends its Close frame now. serve answers the one of the client; a
    /// half-closed client can send none.
    fn is_done(&self, finishes: bool) -> bool {
        let is_half_closed = self.role.kind == Kind::HalfClosed;
        let is_ended = self.seen.is_ended.load(Ordering::SeqCst);
        match self.role.direction.sender {
            Sender::Client => finishes || is_ended,
            Sender::Serve if is_half_closed => finishes,
            Sender::Serve => self.seen.is_closed.load(Ordering::SeqCst) || is_ended,
        }
    }

    async fn send(&mut self, frame: Frame) -> io::Result<()> {
        let bytes = self.role.direction.encode(frame);
        let body = self.role.direction.block().get(bytes.body.clone()).unwrap_or_default();
        self.role.own.push(frame);
        self.writer.write_all(&bytes.head).await?;
        self.writer.write_all(body).await?;
        self.tally.add(&bytes.head);
        self.tally.add(body);
        self.tally.frames += 1;
        Ok(())
    }
}

/// Waits until this time; indefinitely without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

async fn receive(
    mut reader: OwnedReadHalf,
    begin: Vec<u8>,
    role: &Role,
    seen: &Seen,
    replies: mpsc::UnboundedSender<Frame>,
    changed: watch::Sender<()>,
) -> EndReport {
    let is_client = role.direction.sender == Sender::Client;
    if role.kind == Kind::Blocked && is_client {
        let _ = role.finish.clone().wait_for(|finishes| *finishes).await;
    }
    let from = if is_client { Sender::Serve } else { Sender::Client };
    let mut checker = Checker::new(Direction { sender: from, ..role.direction }, role.other.clone());
    let (mut complete, mut wrong) = (Vec::new(), None);
    let mut is_closed = false;
    let mut buffer = vec![0; 64 << 10];
    let mut piece = begin;
    let mut last = Instant::now();
    let end = loop {
        if let Err(error) = checker.feed(&piece, &mut complete) {
            wrong = Some(error.to_string());
            break None;
        }
        for frame in complete.drain(..) {
            match frame {
                Frame::Ping => drop(replies.send(Frame::Pong)),
                Frame::Close(_) => {
                    is_closed = true;
                    seen.is_closed.store(true, Ordering::SeqCst);
                    changed.send_replace(());
                }
                Frame::Pong if role.kind == Kind::Clock => {
                    role.silence.note(last.elapsed());
                    last = Instant::now();
                }
                Frame::Message(_) | Frame::Large(_) | Frame::Pong => {}
            }
        }
        match reader.read(&mut buffer).await {
            Ok(0) => break Some(StreamEnd::Fin),
            Ok(n) => {
                piece.clear();
                piece.extend_from_slice(buffer.get(..n).unwrap_or_default());
            }
            Err(_) => break Some(StreamEnd::Reset),
        }
    };
    // A half-closed session continues for serve after the client's FIN.
    if is_client || role.kind != Kind::HalfClosed || end != Some(StreamEnd::Fin) {
        seen.is_ended.store(true, Ordering::SeqCst);
    } else {
        // Keeps the other half: without it, serve would end.
        let _ = role.finish.clone().wait_for(|finishes| *finishes).await;
    }
    changed.send_replace(());
    EndReport {
        sent: Tally::default(),
        send_error: None,
        end,
        is_closed,
        inserted_close: checker.inserted_close(),
        inserted_bytes: checker.inserted_bytes(),
        is_inside_frame: checker.is_inside_frame(),
        wrong,
        missing_frames: role.other.left(),
        received: checker.tally,
    }
}
