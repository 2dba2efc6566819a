//! Plain data of the kernel side, in the terms of `t3_record`.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

pub use t3_record::evidence::CloseFrames;
use t3_record::evidence::{Counters, Fate, Nanos, SocketFacts, Task};

/// Sizes of the kernel's maps. The defaults hold 16,384 closes and 1 MiB of events, about 10 MiB of
/// kernel memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Recorded sockets, and serve connections that may be open at the same time.
    pub sockets: u32,
    /// Recorded ended processes, of the whole host.
    pub processes: u32,
    /// Bytes of the event ring: a power of two, at least one page.
    pub ring_bytes: u32,
    pub functions: Functions,
    /// Whether the ring has events about sockets ([`EventKind::Socket`]). Without them the ring has
    /// those of processes only, and a close costs a third less; all facts are in the maps.
    pub socket_events: bool,
    /// Connections whose Close frames can be read at the same time; 0: none are, and the functions
    /// that send and receive are not hooked.
    pub websockets: u32,
}

/// [`Options::websockets`] if there is a port where Close frames are read: 2 MiB of kernel memory.
pub const WEBSOCKETS: u32 = 4_096;

/// How `tcp_close` and `tcp_reset` are hooked, and whether tracepoints may have programs that read
/// memory by its type (only with `Best`). Verdicts are the same either way; the choice is for
/// kernels with problems in one of them, and for comparisons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Functions {
    /// fentry, else a kprobe, else none
    #[default]
    Best,
    /// A kprobe, else none
    Kprobe,
    /// None: tracepoints only
    Tracepoint,
}

/// State of the kernel side, for diagnostics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Tables with their fill level.
    pub tables: Vec<t3_record::wire::Table>,
    /// Events since the load, as [`super::Kernel::sent`].
    pub events: Option<u64>,
    /// What the running kernel's BTF lacks, one line each; usually empty.
    pub missing: Vec<String>,
}

/// CPU time of a program, as the kernel counts it while [`super::Kernel::measure`] is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramTime {
    /// The program: the name of its tracepoint or function.
    pub program: String,
    pub runs: u64,
    pub time: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sockets: 16_384,
            processes: 8_192,
            ring_bytes: 1 << 20,
            functions: Functions::Best,
            socket_events: true,
            websockets: 0,
        }
    }
}

/// A connection as seen from serve: `local` is serve's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServeTuple {
    /// serve's address (dispatch's `remote` of the upstream leg).
    pub local: SocketAddr,
    /// dispatch's address (its `local` of the upstream leg).
    pub remote: SocketAddr,
    /// Network namespace (inode of `/proc/PID/ns/net`); `None` for that of this process.
    pub netns: Option<u32>,
}

impl ServeTuple {
    /// Mirrors dispatch's upstream leg, in the network namespace of this process.
    #[must_use]
    pub fn mirror(dispatch_local: SocketAddr, dispatch_remote: SocketAddr) -> Self {
        Self { local: dispatch_remote, remote: dispatch_local, netns: None }
    }
}

/// Normalizes IPv4 to v4-mapped IPv6, so that both forms compare equal: a serve that listens on
/// `::` has v4-mapped addresses.
pub(super) fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Inverse of [`octets`]: v4-mapped addresses become IPv4.
pub(super) fn address(octets: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), port)
}

/// Distinguishes successive connections with the same tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub(super) u64);

impl Generation {
    /// The connection was established before the kernel side watched its port.
    pub const UNKNOWN: Self = Self(0);

    /// The connection that was established at this time.
    #[must_use]
    pub const fn of(established_at: Nanos) -> Self {
        Self(established_at)
    }

    /// Time at which the connection was established, if recorded.
    #[must_use]
    pub fn established_at(self) -> Option<Nanos> {
        (self != Self::UNKNOWN).then_some(self.0)
    }
}

/// Recorded events of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Thread group and `comm` of its leader.
    pub task: Task,
    /// Start time in nanoseconds of `CLOCK_BOOTTIME` (field 22 of `/proc/PID/stat` is the same in
    /// clock ticks): a pid can be reused. `None` if the kernel's BTF lacks it.
    pub started_boot_ns: Option<u64>,
    /// [`Fate::Alive`] when only a signal or an OOM mark was recorded.
    pub fate: Fate,
    /// Exit time of the last thread.
    pub ended_at: Option<Nanos>,
    /// Sender of the signal that terminated it, if a process sent it.
    pub killer: Option<Task>,
    /// Time at which that signal was sent.
    pub signalled_at: Option<Nanos>,
    /// Last signal that could have terminated it, handled or not (a handled SIGTERM before an exit,
    /// for example).
    pub last_signal: Option<SignalFacts>,
    /// Time at which the OOM killer marked it.
    pub oom_at: Option<Nanos>,
}

/// A signal delivered to a process, with the default action to terminate it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalFacts {
    pub signal: i32,
    /// Sender; `None` if the kernel sent it (a fault, the OOM killer, a timer).
    pub sender: Option<Task>,
    pub at: Nanos,
}

/// A connection to a watched port that has closed ([`super::Kernel::watch_connections`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedConnection {
    /// Time at which its socket left for CLOSE.
    pub at: Nanos,
    /// Its ends; `local` is the one on the watched port.
    pub tuple: ServeTuple,
    pub generation: Generation,
    /// Events of its socket until then. An RST that is sent at the close comes after it:
    /// [`super::Kernel::serve_end`] has it a moment later.
    pub socket: SocketFacts,
    /// `SO_COOKIE`, if anybody has read it.
    pub cookie: Option<u64>,
    /// Counters of its socket; `None` where the kernel's BTF lacks one.
    pub counters: Option<Counters>,
    /// Process that accepted it, or connected, if seen.
    pub opener: Option<Opener>,
    /// The process connected; `false`: it accepted.
    pub is_outgoing: bool,
    /// Close frames, if it is a WebSocket on a port where they are read.
    pub close_frames: Option<CloseFrames>,
}

/// A watched listening port: its closed connections are reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionsOf {
    pub port: u16,
    /// Minimum age of a reported connection.
    pub min_age: Nanos,
    /// Outgoing connections of the processes that accept on it are watched, too.
    pub is_proxy: bool,
    /// Close frames of plain-text WebSockets are read.
    pub has_websocket: bool,
}

/// Watched outgoing connections: of processes that accept on a port with
/// [`ConnectionsOf::is_proxy`], and of these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Cgroups (v2), by the inode of their folder, whose processes' connections are watched.
    pub cgroups: Vec<u64>,
    /// Minimum age of a reported connection.
    pub min_age: Nanos,
    /// Open connections that are older than the watch: `local` is the end of the watched process.
    pub older: Vec<ServeTuple>,
}

/// An open watched connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenConnection {
    pub tuple: ServeTuple,
    pub generation: Generation,
    /// The process connected; `false`: it accepted.
    pub is_outgoing: bool,
}

/// Process that accepted a connection, or connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opener {
    /// Time of the accept or connect; of the first read where the kernel does not show accepts.
    pub at: Nanos,
    pub task: Task,
    /// Its cgroup (v2) at that time: the inode of its folder.
    pub cgroup: u64,
}

/// Closed connections to watched ports that were not reported, since the load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unreported {
    /// Shorter than the minimum of their port.
    pub short: u64,
    /// The ring was full.
    pub lost: u64,
}

/// An event of the ring. The facts are in the maps before the event can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Time in nanoseconds of `CLOCK_MONOTONIC`.
    pub at: Nanos,
    pub kind: EventKind,
}

/// Kind of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A watched socket changed.
    Socket { socket: SocketKey, change: Change },
    /// The last thread of a watched process ended.
    Exit {
        /// Thread group id.
        tgid: u32,
        /// [`Fate::Exit`] or [`Fate::Signal`]; for an OOM kill see [`super::Kernel::process`].
        fate: Fate,
    },
    /// The OOM killer marked a process, watched or not.
    Oom {
        /// Thread group id.
        tgid: u32,
    },
}

/// Socket of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketKey {
    /// Socket of dispatch, by `SO_COOKIE`.
    Cookie(u64),
    /// serve's end of an upstream leg.
    Serve(ServeTuple, Generation),
}

/// First occurrence of a fact of `t3_record::evidence::SocketFacts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// A FIN was received.
    FinIn,
    /// A FIN was sent.
    FinOut,
    /// A RST was received.
    RstIn,
    /// A RST was sent.
    RstOut,
    /// The socket error was set: the errno.
    Error(i32),
    /// The socket entered CLOSE, or `close` was called.
    Closed,
}

/// Losses by reason, since the load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// Events dropped because the ring was full. Their facts are in the maps.
    pub events: u64,
    /// Socket facts dropped because a map was full.
    pub sockets: u64,
    /// Process facts dropped because a map was full.
    pub processes: u64,
    /// Program runs that the kernel skipped, because the same program was running on that CPU.
    pub missed: u64,
}

/// Use of the tables that lose or evict entries, and lost program runs, since the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Facts dropped because a map was full.
    pub full: u64,
    /// New entries in the tables of sockets.
    pub added: u64,
    /// Entries that each of them can have.
    pub size: u64,
    /// Program runs that the kernel skipped, as [`Loss::missed`].
    pub skipped: u64,
}

impl Loss {
    /// Lost facts and events.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.events + self.sockets + self.processes + self.missed
    }

    /// Facts dropped because a map was full.
    #[must_use]
    pub fn map_full(&self) -> u64 {
        self.sockets + self.processes
    }
}
