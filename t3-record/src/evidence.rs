//! What was seen of one session's end: by dispatch on its two sockets, by the kernel, and of the
//! machine around it.
//!
//! Facts only, each with its time; conclusions are drawn in [`crate::verdict`]. A fact that was not
//! seen is `None`, never zero. All times are nanoseconds of `CLOCK_MONOTONIC`, the clock of
//! `bpf_ktime_get_ns`, so that kernel and relay facts can be ordered against each other.

use serde::{Deserialize, Deserializer, Serialize};

use crate::vocabulary::{KernelSource, Side};

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub type Nanos = u64;

/// Everything the verdict is judged from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What dispatch saw. `None` when dispatch died and t3-trace writes the record.
    pub relay: Option<RelayFacts>,
    /// What the kernel side knows, and where that came from.
    pub kernel: KernelFacts,
    /// Neighbours that ended in the same second, when that was a burst.
    pub burst: Option<Burst>,
    /// dispatch died with this session open (only ever set by t3-trace).
    pub dispatch_died: Option<DispatchDeath>,
}

/// How dispatch's own process ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DispatchDeath {
    /// Its fate, if the kernel told.
    pub fate: Option<Fate>,
    /// When the evidence socket broke.
    pub at: Nanos,
}

/// What dispatch saw on its two sockets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RelayFacts {
    /// When the upgrade request had been read.
    pub started_at: Nanos,
    /// When the 101 was relayed; `None` when the session never opened.
    pub opened_at: Option<Nanos>,
    /// When the first leg ended (or the attempt to open failed).
    pub ended_at: Nanos,
    /// Why the attempt to open failed, when it did.
    pub open_failure: Option<OpenFailure>,
    /// The browser's leg.
    pub down: LegFacts,
    /// serve's leg.
    pub up: LegFacts,
    /// The application heartbeat.
    pub heartbeat: Option<Heartbeat>,
    /// Whether its answers got through: looks at the browser's socket when pings came and at the
    /// end, oldest first, at most sixteen.
    #[serde(default, rename = "looks")]
    pub samples: Vec<SocketSample>,
    /// Worst delay of dispatch's event loop in the last 30 s, in milliseconds.
    pub self_lag_ms: Option<u64>,
    /// When that worst delay ended.
    pub self_lag_at: Option<Nanos>,
    /// The signal that told dispatch to stop, and when, if it was stopping before the first leg
    /// ended.
    pub shutdown: Option<Shutdown>,
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

/// dispatch was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// The signal's number; `None` when dispatch stops for a reason of its own.
    pub signal: Option<i32>,
    /// When it was received.
    pub at: Nanos,
}

/// What dispatch saw on one leg.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LegFacts {
    /// What ended reading from this leg, and when.
    pub end: Option<(SeenEnd, Nanos)>,
    /// What ended writing to this leg, and when (an error from write before or without one from
    /// read).
    pub write_error: Option<(SeenEnd, Nanos)>,
    /// Bytes received from this leg.
    pub bytes: u64,
    /// WebSocket data messages received from this leg (control frames not counted).
    pub msgs: u64,
    /// When the last byte came from this leg.
    pub last_byte_at: Option<Nanos>,
    /// The same, as it stood at the first close frame or, without one, when the first leg ended:
    /// what comes later does not shorten the silence before it.
    #[serde(default)]
    pub quiet_since: Option<Nanos>,
    /// The first close frame from this leg.
    pub close_frame: Option<CloseFrame>,
    /// When the first close frame of the *other* leg was written to this one (forwarded whole).
    pub close_forwarded_at: Option<Nanos>,
    /// The first end that dispatch itself sent to this leg's peer: FIN by `shutdown` or `close`,
    /// RST by a close with linger 0.
    #[serde(rename = "told")]
    pub own_end: Option<(OwnEnd, Nanos)>,
    /// The leg ended inside a frame.
    pub mid_frame: bool,
    /// The first breach of the WebSocket protocol by this leg's peer.
    pub breach: Option<Breach>,
    /// Bytes read from the other leg and not yet taken by this leg's socket at the end.
    pub pending_bytes: u64,
    /// Since when this leg's socket has taken no byte while bytes were pending.
    pub blocked_since: Option<Nanos>,
    /// Since when something was pending for this leg without a break: for so long nothing was read
    /// from the other leg at will, and what it had sent may have lain unread.
    #[serde(default)]
    pub backed_up_since: Option<Nanos>,
    /// `TCP_INFO` taken at the end of the first leg.
    pub tcp: Option<TcpFacts>,
}

/// What `read` or `write` answered when a leg ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeenEnd {
    /// End of file: the peer's FIN.
    Eof,
    /// `ECONNRESET`.
    Reset,
    /// `EPIPE`: written after the peer's end.
    Pipe,
    /// `ETIMEDOUT`.
    Timeout,
    /// `ECONNABORTED`: destroyed by an administrator.
    Abort,
    /// `EHOSTUNREACH` or `ENETUNREACH`.
    Unreach,
    /// `ECONNREFUSED`.
    Refused,
    /// Another errno.
    Errno(i32),
}

/// How dispatch ended a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnEnd {
    /// `shutdown(SHUT_WR)` or an ordinary close.
    Fin,
    /// A close with `SO_LINGER` 0.
    Rst,
}

/// Why a session never opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenFailure {
    /// serve's port refused the connection.
    Refused,
    /// serve's address cannot be reached.
    Unreach,
    /// No answer to connect in time.
    ConnectTimeout,
    /// Connected, but no complete answer to the handshake in time.
    HandshakeTimeout,
    /// serve closed the connection (FIN) before it had answered.
    HandshakeEof,
    /// serve reset the connection before it had answered.
    HandshakeReset,
    /// serve answered another status than 101.
    Status(u16),
    /// serve answered 101 with a wrong or missing `Sec-WebSocket-Accept`.
    BadAccept,
    /// serve's answer was not HTTP.
    Garbage,
    /// The browser's side went away before serve had answered.
    ClientGone,
    /// dispatch itself could not (out of descriptors, for example): the errno.
    Local(i32),
}

/// A close frame (RFC 6455 section 5.5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseFrame {
    /// The status code; `None` for an empty close frame.
    pub code: Option<u16>,
    /// The reason, at most 123 bytes, invalid UTF-8 replaced.
    pub reason: String,
    /// When its last byte was read.
    pub at: Nanos,
}

/// A breach of RFC 6455 by one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Breach {
    /// A reserved bit without a negotiated extension (section 5.2).
    ReservedBit,
    /// A reserved opcode (section 5.2).
    ReservedOpcode,
    /// A browser's frame without mask (section 5.1).
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
    /// A close frame with one byte, or with a code that must not be sent (section 7.4).
    BadClose,
    /// A data frame after the peer's own close frame (section 5.5.1).
    DataAfterClose,
}

/// The application heartbeat of t3 (facts: a text frame `{"_tag":"Ping"}` answered by
/// `{"_tag":"Pong"}`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Pings seen.
    pub pings: u64,
    /// Pongs seen.
    pub pongs: u64,
    /// Answer time of the last answered ping, in nanoseconds.
    pub rtt_ns: Option<u64>,
    /// Worst answer time, in nanoseconds.
    pub rtt_max_ns: Option<u64>,
    /// When the last ping came.
    pub last_ping_at: Option<Nanos>,
    /// When the last pong came.
    pub last_pong_at: Option<Nanos>,
    /// When the oldest ping that is still unanswered came.
    pub waiting_since: Option<Nanos>,
    /// How many pings are unanswered.
    pub unanswered: u32,
    /// The learned period between pings, in nanoseconds; what came while segments were being lost
    /// teaches none.
    pub period_ns: Option<u64>,
    /// The last interval between two pings that were not read in one go, in nanoseconds.
    #[serde(default)]
    pub last_interval_ns: Option<u64>,
    /// How many ticks in a row without a pong the browser has put up with on this connection: its
    /// watchdog needs more.
    #[serde(default)]
    pub survived: u32,
}

/// A look at the browser's socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketSample {
    /// When.
    pub at: Nanos,
    /// How long ago the newest answer had passed that the browser's side has acknowledged, less
    /// what serve took meanwhile, in nanoseconds. About one period when a ping comes over a healthy
    /// path.
    pub silence_ns: u64,
    /// Segments lost since the look before: sent again by us, or seen to be missing among those
    /// that came in.
    pub lost: u32,
}

/// The part of `TCP_INFO` that tells of a leg's health (`include/uapi/linux/tcp.h`).
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
    /// Milliseconds since we sent the last data.
    pub last_data_sent_ms: u32,
    /// The peer's advertised receive window in bytes (kernel 5.4 and newer), if known.
    pub peer_window: Option<u32>,
    /// Bytes in the send queue that have not been sent yet (`tcpi_notsent_bytes`).
    pub notsent_bytes: u32,
}

/// What the kernel side knows of a session, in one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// Where it came from.
    pub source: KernelSource,
    /// The browser's leg: dispatch's socket.
    pub down: Option<SocketFacts>,
    /// serve's leg: dispatch's socket.
    pub up: Option<SocketFacts>,
    /// serve's leg: serve's own end of the same connection.
    pub serve: Option<SocketFacts>,
    /// The process behind serve's end.
    pub peer: Option<Process>,
    /// Pressure in the cgroup of that process.
    pub pressure: Option<Pressure>,
    /// Pressure on the whole machine.
    pub host: Option<Pressure>,
    /// Memory of that cgroup.
    pub memory: Option<Memory>,
    /// Kernel events lost since the last answer.
    pub lost: u64,
}

impl Default for KernelFacts {
    fn default() -> Self {
        Self::absent(KernelSource::Off)
    }
}

impl KernelFacts {
    /// No evidence, and why.
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
            lost: 0,
        }
    }
}

/// First occurrences of the events that end a TCP connection, as the kernel saw them on one socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFacts {
    /// The peer's FIN came in.
    pub fin_in: Option<Nanos>,
    /// We sent FIN (`close` or `shutdown`).
    pub fin_out: Option<Nanos>,
    /// A RST came in.
    pub rst_in: Option<Nanos>,
    /// We sent a RST.
    pub rst_out: Option<Nanos>,
    /// The socket's error and when it was set (`sk_err`: 110 timeout, 104 reset, 103 abort, 113
    /// unreachable ...).
    pub error: Option<(i32, Nanos)>,
    /// `tcp_close` was entered, or the socket left for CLOSE.
    pub closed: Option<Nanos>,
    /// Who closed: the task in whose context `close` or `shutdown` ran. Never set from network
    /// context.
    pub closer: Option<Task>,
    /// The kernel's name of the reset's reason, where it gives one (6.10 and newer).
    pub rst_reason: Option<String>,
    /// Segments retransmitted.
    pub retrans: u32,
}

/// A process as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Thread group id: what user space calls the pid.
    pub pid: u32,
    /// The 15 bytes of `comm`.
    pub comm: String,
}

/// The process behind the upstream socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Who.
    pub task: Task,
    /// Its fate.
    pub fate: Fate,
    /// When it ended.
    pub ended_at: Option<Nanos>,
    /// The fatal signal's sender, when a process sent it; of a process that exited by itself, who
    /// had asked it to end (SIGTERM) just before.
    pub killer: Option<Task>,
    /// When the fatal signal was sent.
    pub signalled_at: Option<Nanos>,
    /// The argv of an OOM victim (comm is useless for programs that rename themselves).
    pub victim_argv: Option<String>,
    /// The process is stopped (SIGSTOP) or frozen by its cgroup, as `/proc/PID/stat` and
    /// `cgroup.events` tell.
    pub halted: Option<Halt>,
}

/// Why a living process does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Halt {
    /// State T: stopped by a signal.
    Stopped,
    /// Its cgroup is frozen.
    Frozen,
}

/// The fate of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It lives.
    Alive,
    /// It exited with this status.
    Exit(i32),
    /// It died of this signal.
    Signal(i32),
    /// It was chosen by the OOM killer.
    Oom,
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
    /// All tasks stalled, over the last 10 s. The kernel gives none for the CPU of the whole
    /// machine.
    #[serde(default, deserialize_with = "percent_if_any")]
    pub full: Option<f32>,
    /// The worst second of the last 30 s (some).
    #[serde(deserialize_with = "percent")]
    pub peak: f32,
    /// Some task stalled, over the last 30 s: a stall that fires a watchdog began that long ago.
    #[serde(deserialize_with = "percent")]
    pub some30: f32,
}

/// A percentage from a message: JSON can spell numbers that are none, or that no `f32` holds.
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

/// Sessions that ended within the same second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burst {
    /// How many sessions.
    pub sessions: u32,
    /// Of how many users.
    pub users: u32,
}
