//! Evidence of a session's end: facts from dispatch's two sockets, the kernel and the host.
//!
//! Facts only, each with its time; [`crate::verdict`] concludes. A fact that was not observed is
//! `None`, never zero. All times are nanoseconds of `CLOCK_MONOTONIC`, the clock of
//! `bpf_ktime_get_ns`, so that kernel and relay facts can be ordered against each other.

mod direct;
mod listeners;
mod network;
mod process;

use serde::{Deserialize, Deserializer, Serialize};

pub use self::{
    direct::{CloseFrames, Counters, DirectConnection, PairFacts, UpstreamConnection},
    listeners::Listeners,
    network::{NetworkChange, NetworkEvent},
    process::{Fate, Halt, Process, StopRequest, Task},
};
use crate::vocabulary::{HeartbeatSource, KernelSource, Side};

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub type Nanos = u64;

/// Input of the verdict.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Facts of the relay; `None` if dispatch died and t3-trace writes the record.
    pub relay: Option<RelayFacts>,
    /// Facts of the kernel side, with their source.
    pub kernel: KernelFacts,
    /// The mass disconnect that the session belongs to.
    pub burst: Option<Burst>,
    /// dispatch died with this session open (set by t3-trace only).
    pub dispatch_died: Option<DispatchDeath>,
}

/// End of the dispatch process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DispatchDeath {
    /// Its fate, if known from the kernel.
    pub fate: Option<Fate>,
    /// Time at which the evidence socket closed.
    pub at: Nanos,
}

/// Facts of dispatch's two sockets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RelayFacts {
    /// Time at which the upgrade request was read.
    pub started_at: Nanos,
    /// Time of the 101; `None` if the session never opened.
    pub opened_at: Option<Nanos>,
    /// Time at which the first leg ended, or the open failed.
    pub ended_at: Nanos,
    /// Cause of a failed open.
    pub open_failure: Option<OpenFailure>,
    /// Downstream leg.
    pub down: LegFacts,
    /// Upstream leg.
    pub up: LegFacts,
    /// The application heartbeat.
    pub heartbeat: Option<Heartbeat>,
    /// Delivery of its answers: samples of the client's socket at each ping and at the end, oldest
    /// first, up to sixteen.
    #[serde(default, rename = "looks")]
    pub samples: Vec<SocketSample>,
    /// Worst delay of dispatch's event loop in the last 30 s, in milliseconds.
    pub self_lag_ms: Option<u64>,
    /// Time at which that delay ended.
    pub self_lag_at: Option<Nanos>,
    /// Delays of dispatch's event loop, oldest first: the last [`MAX_SPANS`] that are long enough
    /// to matter. They do not overlap.
    #[serde(default)]
    pub delays: Vec<Span>,
    /// Times in which the host did not run, oldest first: the last [`MAX_SPANS`].
    #[serde(default)]
    pub pauses: Vec<Pause>,
    /// Extensions that serve accepted (`Sec-WebSocket-Extensions` of the 101, RFC 6455 section
    /// 9.1): their names, separated by commas.
    #[serde(default)]
    pub extensions: Option<Box<str>>,
    /// Shutdown of dispatch, if it began before the first leg ended.
    pub shutdown: Option<Shutdown>,
    /// Listening sockets on serve's port, if the connect failed and the tables were readable.
    #[serde(default)]
    pub listeners: Option<Listeners>,
    /// uid of the process behind serve's end of the upstream leg, or of the listener that was not
    /// connected because of it.
    #[serde(default)]
    pub peer_uid: Option<u32>,
    /// Number of times a successor of dispatch continued the session.
    #[serde(default)]
    pub resumed: u32,
    /// Time at which the last successor continued it.
    #[serde(default)]
    pub resumed_at: Option<Nanos>,
}

impl RelayFacts {
    /// The facts of one leg.
    #[must_use]
    pub fn leg(&self, side: Side) -> &LegFacts {
        match side {
            Side::Down => &self.down,
            Side::Up => &self.up,
        }
    }
}

/// Most delays and pauses that evidence lists.
pub const MAX_SPANS: usize = 32;

/// A time in which dispatch's event loop did not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Time at which it should have run.
    pub from: Nanos,
    /// Time at which it ran.
    pub until: Nanos,
}

/// A time in which the whole host did not run. `CLOCK_MONOTONIC` does not count all of it, so its
/// length is separate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Time at which it ended.
    pub at: Nanos,
    /// Length in nanoseconds.
    pub length: Nanos,
    /// The kernel counted it as suspended. Other clocks can be set, and a ping can be sent early.
    #[serde(default)]
    pub is_certain: bool,
}

/// Bytes that wait in a direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Bytes that dispatch holds, and bytes in its socket that are not acknowledged.
    pub bytes: u64,
    /// Time since which there were always some.
    pub since: Nanos,
}

/// Shutdown of dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// Signal number; `None` if dispatch stops without a signal.
    pub signal: Option<i32>,
    /// Time of the signal.
    pub at: Nanos,
}

/// Facts of one leg.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LegFacts {
    /// Result that ended reading, and its time.
    pub end: Option<(SeenEnd, Nanos)>,
    /// Error that ended writing, and its time, if write failed before read.
    pub write_error: Option<(SeenEnd, Nanos)>,
    /// Bytes received from this leg.
    pub bytes: u64,
    /// WebSocket data messages received from this leg (control frames not counted).
    pub msgs: u64,
    /// Time of the last byte from this leg.
    pub last_byte_at: Option<Nanos>,
    /// The same at the first Close frame or, without one, at the end of the first leg: later bytes
    /// do not shorten the silence before it.
    #[serde(default)]
    pub quiet_since: Option<Nanos>,
    /// Time of the last complete frame from this leg, of any kind, before the first Close frame or
    /// the end of the first leg.
    #[serde(default)]
    pub last_frame_at: Option<Nanos>,
    /// First Close frame from this leg.
    pub close_frame: Option<CloseFrame>,
    /// Time at which the first Close frame of the *other* leg was written completely to this one.
    pub close_forwarded_at: Option<Nanos>,
    /// First end that dispatch sent to this leg's peer: FIN by `shutdown` or `close`, RST by a
    /// close with linger 0.
    #[serde(rename = "told")]
    pub own_end: Option<(OwnEnd, Nanos)>,
    /// The leg ended inside a frame.
    pub mid_frame: bool,
    /// First violation of RFC 6455 by this leg's peer.
    pub breach: Option<Breach>,
    /// Bytes read from the other leg and not yet accepted by this leg's socket at the end.
    pub pending_bytes: u64,
    /// Time since which this leg's socket accepted no byte while bytes were pending.
    pub blocked_since: Option<Nanos>,
    /// Time since which data that the other leg had sent may have been unread: reading from it was
    /// paused because bytes were pending for this leg, and its receive queue was not empty since.
    #[serde(default)]
    pub backed_up_since: Option<Nanos>,
    /// Bytes that waited for this leg's peer at the first Close frame or end.
    #[serde(default)]
    pub backlog: Option<Backlog>,
    /// Bytes from the other leg's peer that this leg's peer had not acknowledged when the session
    /// ended.
    #[serde(default)]
    pub undelivered: u64,
    /// `TCP_INFO` taken at the end of the first leg.
    pub tcp: Option<TcpFacts>,
}

/// Result of `read` or `write` at the end of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeenEnd {
    /// End of file: the peer's FIN.
    Eof,
    /// `ECONNRESET`.
    Reset,
    /// `EPIPE`: write after the peer's end.
    Pipe,
    /// `ETIMEDOUT`.
    Timeout,
    /// `ECONNABORTED`: the socket was destroyed.
    Abort,
    /// `EHOSTUNREACH` or `ENETUNREACH`.
    Unreach,
    /// `ECONNREFUSED`.
    Refused,
    /// Another errno.
    Errno(i32),
}

/// End of a leg by dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnEnd {
    /// `shutdown(SHUT_WR)` or a plain close.
    Fin,
    /// A close with `SO_LINGER` 0.
    Rst,
}

/// Cause of a failed open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenFailure {
    /// serve's port refused the connection.
    Refused,
    /// serve's address cannot be reached.
    Unreach,
    /// No connection in time.
    ConnectTimeout,
    /// Connected, but no complete response to the upgrade in time.
    HandshakeTimeout,
    /// serve sent FIN before its response.
    HandshakeEof,
    /// serve sent RST before its response.
    HandshakeReset,
    /// serve answered with a status other than 101.
    Status(u16),
    /// serve answered 101 with a wrong or missing `Sec-WebSocket-Accept`.
    BadAccept,
    /// serve's response was not HTTP.
    Garbage,
    /// The client left before serve's response.
    ClientGone,
    /// serve's port belongs to another user; nothing was sent to it.
    ForeignListener,
    /// Local error of dispatch, for example out of descriptors: the errno.
    Local(i32),
}

/// A Close frame (RFC 6455 section 5.5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseFrame {
    /// Status code; `None` for an empty Close frame.
    pub code: Option<u16>,
    /// The reason, at most 123 bytes, invalid UTF-8 replaced.
    pub reason: String,
    /// Time at which its last byte was read.
    pub at: Nanos,
}

impl CloseFrame {
    /// Whether a watchdog of t3's client sends it: 1000 without a reason (facts: t3 client, "close
    /// sent by the watchdog").
    #[must_use]
    pub fn is_of_a_watchdog(&self) -> bool {
        self.code == Some(1000) && self.reason.is_empty()
    }
}

/// A violation of RFC 6455 by one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Breach {
    /// A reserved bit without a negotiated extension (section 5.2).
    ReservedBit,
    /// A reserved opcode (section 5.2).
    ReservedOpcode,
    /// A client's frame without mask (section 5.1).
    Unmasked,
    /// A server's frame with mask (section 5.1).
    Masked,
    /// A control frame longer than 125 bytes (section 5.5).
    LongControl,
    /// A control frame in fragments (section 5.5).
    FragmentedControl,
    /// A continuation without a start, or a start inside a message (section 5.4).
    Continuation,
    /// A 64-bit length with the highest bit set (section 5.2).
    HugeLength,
    /// A Close frame with one byte, or with a code that must not be sent (section 7.4).
    BadClose,
    /// A data frame after the peer's own Close frame (section 5.5.1).
    DataAfterClose,
}

/// The heartbeat of a session: t3's text frame `{"_tag":"Ping"}` answered by `{"_tag":"Pong"}`
/// (facts), Ping and Pong frames, or small messages with a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// How it was recognised; `None` for messages of a version without this field, which knew only
    /// text.
    #[serde(default)]
    pub source: Option<HeartbeatSource>,
    /// serve sends the pings, not the client.
    #[serde(default)]
    pub is_by_serve: bool,
    /// First ping after the last frame of any kind from the other side; `None` after such a frame.
    #[serde(default)]
    pub silent_since: Option<Nanos>,
    /// A message or frame that only a heartbeat has, or messages of which most are at a period: by
    /// a timer, not by a user whose messages have a period by chance.
    #[serde(default)]
    pub is_regular: bool,
    /// Pings seen.
    pub pings: u64,
    /// Pongs seen.
    pub pongs: u64,
    /// RTT of the last answered ping, in nanoseconds.
    pub rtt_ns: Option<u64>,
    /// Maximum RTT, in nanoseconds.
    pub rtt_max_ns: Option<u64>,
    /// Time of the last ping.
    pub last_ping_at: Option<Nanos>,
    /// Time of the last pong.
    pub last_pong_at: Option<Nanos>,
    /// Time of the oldest unanswered ping.
    pub waiting_since: Option<Nanos>,
    /// Number of unanswered pings.
    pub unanswered: u32,
    /// Learned period between pings, in nanoseconds; intervals with lost segments are ignored.
    pub period_ns: Option<u64>,
    /// Last interval between two pings that were not read in the same read, in nanoseconds.
    #[serde(default)]
    pub last_interval_ns: Option<u64>,
    /// Ticks in a row without a pong that the client has tolerated on this connection: its watchdog
    /// needs more.
    #[serde(default)]
    pub survived: u32,
}

impl Heartbeat {
    /// Whether a user's messages can have this period by chance.
    #[must_use]
    pub fn can_be_chance(&self) -> bool {
        self.source == Some(HeartbeatSource::Rhythm) && !self.is_regular
    }
}

/// A sample of the client's socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketSample {
    /// Time of the sample.
    pub at: Nanos,
    /// Age of the newest acknowledged answer, less the time that serve took meanwhile, in
    /// nanoseconds. About one period at a ping over a healthy path.
    pub silence_ns: u64,
    /// Segments lost since the previous sample: retransmitted by dispatch, or missing among those
    /// received.
    pub lost: u32,
}

/// The part of `TCP_INFO` that shows the health of a leg (`include/uapi/linux/tcp.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpFacts {
    /// Smoothed round trip time in microseconds.
    pub rtt_us: u32,
    /// Segments retransmitted over the life of the connection.
    pub total_retrans: u32,
    /// Segments that came in out of order (kernel 5.4 and newer), if known: one before them was
    /// lost, or overtaken.
    #[serde(default)]
    pub out_of_order: Option<u32>,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Segments considered lost.
    pub lost: u32,
    /// Unanswered retransmissions of the segment at the head of the queue.
    pub retransmits: u8,
    /// Unanswered window or keepalive probes.
    pub probes: u8,
    /// Exponential back-off of the retransmission timer.
    pub backoff: u8,
    /// Milliseconds since the last acknowledgement came in.
    pub last_ack_recv_ms: u32,
    /// Milliseconds since the last data came in.
    pub last_data_recv_ms: u32,
    /// Milliseconds since the last data was sent.
    pub last_data_sent_ms: u32,
    /// The peer's advertised receive window in bytes (kernel 5.4 and newer), if known.
    pub peer_window: Option<u32>,
    /// Bytes in the send queue that have not been sent yet (`tcpi_notsent_bytes`).
    pub notsent_bytes: u32,
    /// Bytes sent and not acknowledged (kernel 4.19 and newer), if known; after a reset those at
    /// the reset (`tcpi_bytes_sent` less `tcpi_bytes_retrans` and `tcpi_bytes_acked`).
    #[serde(default)]
    pub outstanding: Option<u32>,
    /// `TCP_USER_TIMEOUT` of the socket in milliseconds, if known: unacknowledged data ends the
    /// connection after it.
    #[serde(default)]
    pub user_timeout_ms: Option<u32>,
}

/// Facts of the kernel side about a session, one reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// Source.
    pub source: KernelSource,
    /// Downstream leg: dispatch's socket.
    pub down: Option<SocketFacts>,
    /// Upstream leg: dispatch's socket.
    pub up: Option<SocketFacts>,
    /// Upstream leg: serve's socket of the same connection.
    pub serve: Option<SocketFacts>,
    /// Process behind serve's socket.
    pub peer: Option<Process>,
    /// Pressure in the cgroup of that process.
    pub pressure: Option<Pressure>,
    /// Pressure of the host.
    pub host: Option<Pressure>,
    /// Memory of that cgroup.
    pub memory: Option<Memory>,
    /// Free swap of the host in bytes; `None` on a host without swap.
    #[serde(default)]
    pub swap_free: Option<u64>,
    /// Changes of this host's own network on the legs, in the 60 s before the end, oldest first.
    #[serde(default)]
    pub network: Vec<NetworkEvent>,
    /// Delays of t3-trace's own sampler, oldest first: the last [`MAX_SPANS`].
    #[serde(default)]
    pub delays: Vec<Span>,
    /// CPU time that the hypervisor gave to others in the worst second of the last 30 s, in percent
    /// of all CPUs; `None` where the kernel does not count it.
    #[serde(default)]
    pub steal: Option<f32>,
    /// Kernel events lost since the last reply.
    pub lost: u64,
    /// The kernel side lost facts in the last minute: its tables had too little room, or the kernel
    /// skipped 128 or more runs of its programs. An event that is absent may have happened.
    #[serde(default)]
    pub is_overflowed: bool,
}

impl Default for KernelFacts {
    fn default() -> Self {
        Self::absent(KernelSource::Off)
    }
}

impl KernelFacts {
    /// No evidence, with the source as cause.
    #[must_use]
    pub fn absent(source: KernelSource) -> Self {
        Self {
            source,
            down: None,
            up: None,
            serve: None,
            peer: None,
            pressure: None,
            host: None,
            memory: None,
            swap_free: None,
            network: Vec::new(),
            delays: Vec::new(),
            steal: None,
            lost: 0,
            is_overflowed: false,
        }
    }
}

/// First occurrence of each event that ends a TCP connection, on one socket in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFacts {
    /// FIN received.
    pub fin_in: Option<Nanos>,
    /// FIN sent (`close` or `shutdown`).
    pub fin_out: Option<Nanos>,
    /// RST received.
    pub rst_in: Option<Nanos>,
    /// RST sent.
    pub rst_out: Option<Nanos>,
    /// The socket's error and when it was set (`sk_err`: 110 timeout, 104 reset, 103 abort, 113
    /// unreachable ...).
    pub error: Option<(i32, Nanos)>,
    /// `tcp_close` was entered, or the socket left for CLOSE.
    pub closed: Option<Nanos>,
    /// Task in whose context `close` or `shutdown` ran; never set from network context.
    pub closer: Option<Task>,
    /// Reset reason of the kernel (6.10 and newer).
    pub rst_reason: Option<String>,
    /// Segments retransmitted.
    pub retrans: u32,
}

/// Pressure stall information (Documentation/accounting/psi.rst): percent of wall time. `None`
/// where the kernel gives none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Memory.
    pub mem: Option<Stall>,
    /// IO.
    pub io: Option<Stall>,
    /// CPU.
    pub cpu: Option<Stall>,
}

/// Percent of time in which tasks stalled on one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// Some task stalled, over the last 10 s.
    #[serde(deserialize_with = "percent")]
    pub some: f32,
    /// All tasks stalled, over the last 10 s; absent for the CPU of the host.
    #[serde(default, deserialize_with = "percent_if_any")]
    pub full: Option<f32>,
    /// Worst second of the last 30 s (some).
    #[serde(deserialize_with = "percent")]
    pub peak: f32,
    /// Some task stalled, over the last 30 s; a stall that fires a watchdog began within that time.
    #[serde(deserialize_with = "percent")]
    pub some30: f32,
}

/// A percentage from a message; JSON allows numbers outside the range of `f32`.
fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    checked(f32::deserialize(deserializer)?)
}

fn percent_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
    Option::<f32>::deserialize(deserializer)?.map(checked).transpose()
}

fn checked<E: serde::de::Error>(value: f32) -> Result<f32, E> {
    if (0.0..=1000.0).contains(&value) {
        Ok(value)
    } else {
        Err(E::custom(format!("{value} is not a percentage")))
    }
}

/// Memory of a cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// `memory.current` in bytes.
    pub current: Option<u64>,
    /// `memory.max` in bytes; `None` when unlimited.
    pub max: Option<u64>,
    /// OOM kills in this cgroup in the last 60 s (`memory.events`).
    pub oom_kills: Option<u64>,
    /// Times tasks were throttled at `memory.high` in the last 60 s (`memory.events`).
    pub high_events: Option<u64>,
}

/// Mass disconnect: sessions cut within the same second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burst {
    /// Number of sessions.
    pub sessions: u32,
    /// Number of users.
    pub users: u32,
}
