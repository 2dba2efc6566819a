//! What the kernel side takes and gives, in the words of `t3_record`. Never touches the kernel.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use t3_record::evidence::{Fate, Nanos, Task};

/// Sizes of the kernel's tables. The defaults hold 16,384 endings and 1 MiB of events, some 10 MiB
/// of kernel memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Endings of sockets that are remembered, and serve connections that may be open at once.
    pub sockets: u32,
    /// Ended processes that are remembered, of the whole machine.
    pub processes: u32,
    /// Bytes of the ring of events: a power of two, at least one page.
    pub ring_bytes: u32,
    /// How to hook functions.
    pub functions: Functions,
}

/// How `tcp_close` and `tcp_reset` are hooked. The verdicts are the same either way; choosing is
/// for kernels on which one way gives trouble, and for comparing them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Functions {
    /// fentry, else a kprobe, else not at all.
    #[default]
    Best,
    /// A kprobe, else not at all.
    Kprobe,
    /// Not at all: tracepoints alone.
    Tracepoint,
}

/// What the kernel side holds, for diagnostics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Its tables, and how full they are.
    pub tables: Vec<t3_record::wire::Table>,
    /// Events written to the ring since the load, read or not.
    pub events: Option<u64>,
    /// What the running kernel's BTF does not tell, one line each; usually nothing.
    pub missing: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { sockets: 16_384, processes: 8_192, ring_bytes: 1 << 20, functions: Functions::Best }
    }
}

/// A connection as serve's own end of it sees it: `local` is serve's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServeTuple {
    /// serve's address (dispatch's `remote` of the upstream leg).
    pub local: SocketAddr,
    /// dispatch's address (its `local` of the upstream leg).
    pub remote: SocketAddr,
    /// The network namespace (inode of `/proc/PID/ns/net`); `None` for this process's own.
    pub netns: Option<u32>,
}

impl ServeTuple {
    /// The mirror image of dispatch's upstream leg, in this process's network namespace.
    #[must_use]
    pub fn mirror(dispatch_local: SocketAddr, dispatch_remote: SocketAddr) -> Self {
        Self { local: dispatch_remote, remote: dispatch_local, netns: None }
    }
}

/// The addresses a tuple is compared by: equal whether written as IPv4 or as v4-mapped IPv6: a
/// serve that listens on `::` has v4-mapped ones.
pub(super) fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The other way round: IPv4 is given as IPv4.
pub(super) fn address(octets: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), port)
}

/// One of the connections that used the same tuple, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub(super) u64);

impl Generation {
    /// The connection was established before the kernel side watched its port.
    pub const UNKNOWN: Self = Self(0);

    /// When the connection was established, if that was seen.
    #[must_use]
    pub fn established_at(self) -> Option<Nanos> {
        (self != Self::UNKNOWN).then_some(self.0)
    }
}

/// What the kernel told about a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Who: the thread group and its leader's `comm`.
    pub task: Task,
    /// When it was started, in nanoseconds of `CLOCK_BOOTTIME` (field 22 of `/proc/PID/stat` is the
    /// same in clock ticks): a pid can be reused. `None` where the kernel's BTF does not show it.
    pub started_boot_ns: Option<u64>,
    /// Its fate. [`Fate::Alive`] when only a signal or an OOM mark has been seen so far.
    pub fate: Fate,
    /// When its last thread ended.
    pub ended_at: Option<Nanos>,
    /// Who sent the signal it died of, if a process did.
    pub killer: Option<Task>,
    /// When the signal it died of was sent.
    pub signalled_at: Option<Nanos>,
    /// The last signal that could have ended it, whether it did or not (a SIGTERM that was handled,
    /// before an exit).
    pub last_signal: Option<SignalFacts>,
    /// When the OOM killer chose it.
    pub oom_at: Option<Nanos>,
}

/// A signal that was delivered to a process and whose default action is to end it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalFacts {
    /// Its number.
    pub signal: i32,
    /// The process that sent it; `None` when the kernel did (a fault, the OOM killer, a timer).
    pub sender: Option<Task>,
    /// When.
    pub at: Nanos,
}

/// Something happened. The facts themselves are in the maps and are already there when the event is
/// read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, by the kernel's clock.
    pub at: Nanos,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A watched socket changed.
    Socket {
        /// Which.
        socket: SocketKey,
        /// How.
        change: Change,
    },
    /// The last thread of a watched process ended.
    Exit {
        /// Thread group id.
        tgid: u32,
        /// [`Fate::Exit`] or [`Fate::Signal`]; whether it was the OOM killer is for
        /// [`super::Kernel::process`] to say.
        fate: Fate,
    },
    /// The OOM killer chose a process. Of any process of the machine: it is rare, and always worth
    /// knowing.
    Oom {
        /// Thread group id.
        tgid: u32,
    },
}

/// Which socket an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketKey {
    /// One of dispatch's: its `SO_COOKIE`.
    Cookie(u64),
    /// serve's own end.
    Serve(ServeTuple, Generation),
}

/// The first occurrence of one of the facts of `t3_record::evidence::SocketFacts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// The peer's FIN came in.
    FinIn,
    /// We sent FIN.
    FinOut,
    /// A RST came in.
    RstIn,
    /// We sent a RST.
    RstOut,
    /// The socket's error was set: the errno.
    Error(i32),
    /// The socket left for CLOSE, or `close` was entered.
    Closed,
}

/// What was lost, by reason. All count since the load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// Events that found the ring full. The facts behind them are in the maps all the same.
    pub events: u64,
    /// Facts about sockets that found no place in a map.
    pub sockets: u64,
    /// Facts about processes that found no place in a map.
    pub processes: u64,
    /// Runs of a program that the kernel left out, because the same program was running on that CPU
    /// already.
    pub missed: u64,
}

impl Loss {
    /// Facts and events together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.events + self.sockets + self.processes + self.missed
    }

    /// Facts that found no place in a map.
    #[must_use]
    pub fn map_full(&self) -> u64 {
        self.sockets + self.processes
    }
}
