//! The messages of the evidence socket: `/run/t3-trace/evidence.sock`, `SOCK_SEQPACKET`, one JSON
//! message a packet.
//!
//! Versioned: the first message is [`ToTrace::Hello`], answered by [`FromTrace::Welcome`] or
//! [`FromTrace::Refused`]. Fields may be added (decoding ignores unknown ones); a message that
//! changes its meaning raises [`VERSION`].

pub mod live;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    evidence::{KernelFacts, Nanos},
    record::{CloseRecord, OpenRecord},
    vocabulary::KernelSource,
};
use live::{Sessions, StatsReport};

/// The protocol's version.
pub const VERSION: u32 = 1;

/// Where the socket stands.
pub const SOCKET_PATH: &str = "/run/t3-trace/evidence.sock";

/// No message is longer, in bytes. A packet that is gets refused, not cut.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// From dispatch or a subscriber to t3-trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ToTrace {
    /// The first message.
    Hello {
        /// [`VERSION`] of the sender.
        v: u32,
        /// What the sender wants to be.
        role: Role,
    },
    /// The ports to watch: replaces the earlier set of this dispatch. Sent after the welcome and on
    /// each reload.
    Watch {
        /// Ports dispatch listens on.
        listen: Vec<u16>,
        /// Ports of all serves in the routing table.
        serve: Vec<u16>,
    },
    /// A session opened (or, after a reconnect, is open). Also sent for an attempt to open that is
    /// about to fail.
    Register(Box<Session>),
    /// What does the kernel know? Asked shortly after the first leg has ended, for pressure and the
    /// state of the process, which do not keep, and once more when both legs have, for their
    /// sockets.
    Ask {
        /// The session.
        conn: String,
    },
    /// The record has been written to the journal; forget the session and tell the subscribers.
    Done {
        /// The session.
        conn: String,
        /// The record as written.
        record: Box<CloseRecord>,
    },
    /// The `ws open` record, for subscribers. Sent once, after `Register`.
    Opened {
        /// The record as written.
        record: Box<OpenRecord>,
    },
    /// How is the daemon? Answered by [`FromTrace::Status`]. Allowed in every role.
    Status,
    /// Which sessions are open? From a subscriber, and only when the welcome says that it is
    /// understood. Answered by [`FromTrace::Sessions`], not more often than once a second.
    Sessions,
    /// Live numbers of sessions in which something has moved: from dispatch, while
    /// [`FromTrace::WantPulses`] holds.
    Pulses {
        /// At most [`live::MOST_PULSES`].
        pulses: Vec<StatsReport>,
    },
}

/// What a peer of the evidence socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// t3-dispatch: may watch, register, ask.
    Dispatch,
    /// A viewer: receives records.
    Subscriber,
}

/// One session as t3-trace needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The session's id.
    pub conn: String,
    /// The OS user.
    pub user: String,
    /// The client's address.
    pub ip: String,
    /// The `Cf-Ray` header.
    pub ray: Option<String>,
    /// When the 101 was relayed; `None` while opening.
    pub opened_at: Option<Nanos>,
    /// dispatch's socket towards the browser.
    pub down: Option<Leg>,
    /// dispatch's socket towards serve.
    pub up: Option<Leg>,
    /// serve's port on this machine.
    pub serve_port: u16,
}

/// One socket of dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// `SO_COOKIE`: the join key with the kernel, unique per boot.
    pub cookie: u64,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
}

/// From t3-trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum FromTrace {
    /// The hello was accepted.
    Welcome {
        /// [`VERSION`] of t3-trace.
        v: u32,
        /// What its kernel side gives.
        kernel: KernelSource,
        /// It understands [`ToTrace::Sessions`].
        #[serde(default)]
        sessions: bool,
    },
    /// The peer may not, or the message made no sense; the connection is closed after it.
    Refused {
        /// Why, and what to do.
        why: String,
    },
    /// The answer to [`ToTrace::Ask`]; sent once for each.
    Evidence {
        /// The session.
        conn: String,
        /// What the kernel side knows.
        facts: Box<KernelFacts>,
    },
    /// To subscribers: a session opened.
    Opened {
        /// Its record.
        record: Box<OpenRecord>,
    },
    /// To subscribers: a session closed.
    Closed {
        /// Its record.
        record: Box<CloseRecord>,
    },
    /// To a subscriber that was too slow: so many records were left out since the last one.
    Skipped {
        /// How many.
        records: u64,
    },
    /// The answer to [`ToTrace::Status`].
    Status(Box<Status>),
    /// The answer to [`ToTrace::Sessions`], in one part or several.
    Sessions(Box<Sessions>),
    /// To dispatch: somebody watches. Send [`ToTrace::Pulses`] once a second for this long; said
    /// again while it goes on.
    WantPulses {
        /// Milliseconds from now.
        ms: u64,
    },
}

/// How the daemon is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Package version of t3-trace.
    pub version: String,
    /// What the kernel side gives.
    pub kernel: Option<KernelSource>,
    /// Each hook: its name, how it is attached, or why not.
    pub hooks: Vec<Hook>,
    /// Registered sessions.
    pub sessions: u64,
    /// Connected subscribers.
    pub subscribers: u64,
    /// A dispatch is connected.
    pub dispatch: bool,
    /// Kernel events lost since the start.
    pub lost: u64,
    /// Insertions refused by a full map since the start.
    pub map_full: u64,
    /// How long it has been running, in seconds.
    #[serde(default)]
    pub uptime_s: Option<u64>,
    /// Ports that are watched: dispatch's own.
    #[serde(default)]
    pub listen: Vec<u16>,
    /// And those of the serves.
    #[serde(default)]
    pub serve: Vec<u16>,
    /// The kernel side's tables; none when it is off.
    #[serde(default)]
    pub tables: Vec<Table>,
    /// Kernel events sent since the start, read or not.
    #[serde(default)]
    pub events: Option<u64>,
    /// What the running kernel's BTF does not tell, a line each.
    #[serde(default)]
    pub missing: Vec<String>,
    /// How far the wall clock was moved since the start, beyond what has passed, in milliseconds.
    #[serde(default)]
    pub clock_moved_ms: Option<i64>,
}

/// One table of the kernel side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// How much it holds: entries, or bytes of the ring.
    pub size: u64,
    /// How much of it is in use; `None` for the ring.
    pub used: Option<u64>,
    /// It forgets the oldest when it is full, by design; then being full costs nothing.
    pub forgets: bool,
}

/// One hook of the kernel side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// `category:name` of a tracepoint, or the function's name.
    pub name: String,
    /// `tracepoint`, `kprobe`, `fentry`, or `None` when it is not attached.
    pub attached: Option<String>,
    /// Why it is not attached, and what is lost by that.
    pub why: Option<String>,
}
