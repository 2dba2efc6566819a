//! Messages of the evidence socket: `/run/t3-trace/evidence.sock`, `SOCK_SEQPACKET`, one JSON
//! message per packet.
//!
//! Versioned: the first message is [`ToTrace::Hello`], answered by [`FromTrace::Welcome`] or
//! [`FromTrace::Refused`]. Fields may be added (decoding ignores unknown ones); a message that
//! changes its meaning raises [`VERSION`].

mod bounds;
pub mod live;
mod port_user;

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    evidence::{KernelFacts, Nanos, RelayFacts},
    record::{CloseRecord, OpenRecord, TcpCloseRecord},
    vocabulary::KernelSource,
};
pub use bounds::{MOST_ID, TooLong};
use live::{Sessions, StatsReport};
pub use port_user::PortUser;

/// Version of the protocol.
pub const VERSION: u32 = 1;

/// Path of the socket.
pub const SOCKET_PATH: &str = "/run/t3-trace/evidence.sock";

/// Limit of a message, in bytes; a longer packet is rejected.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Time for which t3-trace waits for the successor of a dispatch that kept its sessions:
/// `RestartSec=` and the start of the unit, up to 20,000 descriptors read from the store, and one
/// retry of its connection to the evidence socket, on a busy host. Then it writes the records, so a
/// later successor must not continue the sessions. A browser gives up after 20 s without a reply
/// (facts: t3 client).
pub const SUCCESSOR_WAIT: Duration = Duration::from_secs(30);

/// Limit of sessions in [`ToTrace::PickedUp`]: with the longest ids they fit into a message.
pub const MOST_ENDED: usize = 900;

/// From dispatch or a subscriber to t3-trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ToTrace {
    /// The first message.
    Hello {
        /// [`VERSION`] of the sender.
        v: u32,
        /// Role of the sender.
        role: Role,
    },
    /// Ports to watch; replaces the previous set of this dispatch. Sent after the welcome and on
    /// each reload.
    Watch {
        /// Ports dispatch listens on.
        listen: Vec<u16>,
        /// Ports of all serves in the routing table.
        serve: Vec<u16>,
        /// Their users; up to as many as fit into a message.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        users: Vec<PortUser>,
    },
    /// A session opened (or is open after a reconnect). Also sent for an open that is about to
    /// fail.
    Register(Box<Session>),
    /// Facts of the relay at the first Close frame of a session, and again at the end of its first
    /// leg, if the welcome announces support: for the record, should dispatch die before it writes
    /// it. Left out when many sessions end at the same time.
    Ending {
        /// The session.
        conn: String,
        /// Facts up to now.
        facts: Box<RelayFacts>,
    },
    /// Query of the kernel evidence. Sent shortly after the first leg ended, for pressure and the
    /// state of the process, which change, and again after both legs ended, for their sockets.
    Ask {
        /// The session.
        conn: String,
    },
    /// The record of a session that ended; delete the session and notify the subscribers.
    Done {
        /// The session.
        conn: String,
        /// The record.
        #[serde(serialize_with = "crate::record::as_texts")]
        record: Box<CloseRecord>,
        /// dispatch could not hand it to journald: t3-trace has to write it. Otherwise journald
        /// accepted it.
        #[serde(default)]
        lost: bool,
        /// Sent before, on an earlier connection that may have ended before it was read. The
        /// subscribers have it.
        #[serde(default)]
        again: bool,
    },
    /// The `ws open` record, for subscribers. Sent once, after `Register`.
    Opened {
        /// The record as written.
        #[serde(serialize_with = "crate::record::as_texts")]
        record: Box<OpenRecord>,
    },
    /// From a dispatch that has just started, if the welcome announces support: it has registered
    /// all sessions that it continues. Kept sessions of its predecessor that it neither registered
    /// nor names here are lost.
    PickedUp {
        /// Sessions that it does not continue and whose record it writes itself; up to
        /// [`MOST_ENDED`]. It registers any further ones.
        #[serde(default)]
        ended: Vec<String>,
    },
    /// Query of the daemon state; reply: [`FromTrace::Status`]. Allowed in every role.
    Status,
    /// Query of the open sessions, from a subscriber, if the welcome announces support. Reply:
    /// [`FromTrace::Sessions`], at most once per second.
    Sessions,
    /// Compare the records with the journal now and write those that are missing; from a
    /// subscriber. Reply: [`FromTrace::Reconciled`], after the comparison, which may take minutes.
    Reconcile,
    /// Live stats of sessions with activity, from dispatch, while [`FromTrace::WantPulses`] is in
    /// effect.
    Pulses {
        /// Up to [`live::MOST_PULSES`].
        pulses: Vec<StatsReport>,
    },
}

/// Role of a peer of the evidence socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// t3-dispatch: may watch ports, register sessions and query evidence.
    Dispatch,
    /// A subscriber: receives records.
    Subscriber,
}

/// Registration of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Session id.
    pub conn: String,
    /// The OS user.
    pub user: String,
    /// The client's address.
    pub ip: String,
    /// The `Cf-Ray` header.
    pub ray: Option<String>,
    /// Time of the 101; `None` while opening.
    pub opened_at: Option<Nanos>,
    /// dispatch's downstream socket.
    pub down: Option<Leg>,
    /// dispatch's upstream socket.
    pub up: Option<Leg>,
    /// Port of serve on this host.
    pub serve_port: u16,
    /// dispatch keeps the sockets and the state of this session in a descriptor store: if dispatch
    /// ends, its successor may continue the session.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// Number of times a successor continued the session up to now.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resumed: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde requires")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One socket of dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// `SO_COOKIE`: the join key with the kernel, unique per boot.
    pub cookie: u64,
    /// Local address.
    pub local: SocketAddr,
    /// Peer address.
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
        /// Source of its kernel evidence.
        kernel: KernelSource,
        /// It supports [`ToTrace::Sessions`].
        #[serde(default)]
        sessions: bool,
        /// It supports [`ToTrace::Ending`].
        #[serde(default)]
        ending: bool,
        /// It supports [`Session::kept`] and [`ToTrace::PickedUp`].
        #[serde(default)]
        kept: bool,
    },
    /// The peer lacks permission or the message is invalid; the connection is closed after it.
    Refused {
        /// Cause and hint.
        why: String,
    },
    /// Reply to [`ToTrace::Ask`]; one for several of the same session before it.
    Evidence {
        /// The session.
        conn: String,
        /// Facts of the kernel side.
        facts: Box<KernelFacts>,
    },
    /// To subscribers: a session opened.
    Opened {
        /// Its record.
        #[serde(serialize_with = "crate::record::as_texts")]
        record: Box<OpenRecord>,
    },
    /// To subscribers: a session closed.
    Closed {
        /// Its record.
        #[serde(serialize_with = "crate::record::as_texts")]
        record: Box<CloseRecord>,
    },
    /// To subscribers: a connection closed that t3-dispatch did not carry.
    TcpClosed {
        /// Its record.
        #[serde(serialize_with = "crate::record::as_texts")]
        record: Box<TcpCloseRecord>,
    },
    /// To a slow subscriber: number of records dropped since the last one.
    Skipped {
        /// Number of records.
        records: u64,
    },
    /// Reply to [`ToTrace::Status`].
    Status(Box<Status>),
    /// Reply to [`ToTrace::Sessions`], in one or more parts.
    Sessions(Box<Sessions>),
    /// To dispatch: send [`ToTrace::Pulses`] once per second for this time; renewed while a
    /// subscriber reads live stats.
    WantPulses {
        /// Milliseconds from now.
        ms: u64,
    },
    /// To dispatch and subscribers, after the welcome and on a change: the records in the journal.
    Journal(JournalState),
    /// Reply to [`ToTrace::Reconcile`].
    Reconciled {
        /// Sessions of an ended dispatch that got their record.
        reconciled: u64,
        /// Records of dispatch written again, because they had not arrived in the journal.
        rewritten: u64,
        /// Sessions without a record that are still open.
        open: u64,
        /// Cause of a failure; the counts are those up to it.
        #[serde(default)]
        error: Option<String>,
    },
}

/// Records that t3-trace has compared with the journal. Counts since it started, except `waiting`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalState {
    /// Records that journald had accepted and that were not in the journal.
    #[serde(default)]
    pub missing: u64,
    /// Records written by t3-trace in their place.
    #[serde(default)]
    pub rewritten: u64,
    /// Records that could not be kept for it: the spool was full.
    #[serde(default)]
    pub lost: u64,
    /// Records not yet found in the journal, at present.
    #[serde(default)]
    pub waiting: u64,
}

/// Connections to watched ports that t3-dispatch does not carry. Counts since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectState {
    /// Watched ports.
    pub ports: Vec<u16>,
    /// Records written.
    #[serde(default)]
    pub written: u64,
    /// Closed connections that were shorter than the minimum of their port, also of t3-dispatch.
    #[serde(default)]
    pub short: u64,
    /// Closed connections without a record: the budget of their port was used up.
    #[serde(default)]
    pub over_budget: u64,
    /// Closed connections without a record: the kernel's ring was full.
    #[serde(default)]
    pub lost: u64,
}

/// State of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Package version of t3-trace.
    pub version: String,
    /// Source of the kernel evidence.
    pub kernel: Option<KernelSource>,
    /// Hooks, with the kind of attachment or the cause of its failure.
    pub hooks: Vec<Hook>,
    /// Registered sessions.
    pub sessions: u64,
    /// Those of them that are open.
    #[serde(default)]
    pub open: Option<u64>,
    /// Open sessions whose dispatch keeps them in a descriptor store ([`Session::kept`]).
    #[serde(default)]
    pub kept: Option<u64>,
    /// Sessions of an ended dispatch that wait for its successor.
    #[serde(default)]
    pub waiting: Option<u64>,
    /// Connected subscribers.
    pub subscribers: u64,
    /// A dispatch is connected.
    pub dispatch: bool,
    /// Kernel events lost since the start.
    pub lost: u64,
    /// Insertions rejected by a full map since the start.
    pub map_full: u64,
    /// Uptime in seconds.
    #[serde(default)]
    pub uptime_s: Option<u64>,
    /// Watched ports of dispatch.
    #[serde(default)]
    pub listen: Vec<u16>,
    /// Watched ports of serves.
    #[serde(default)]
    pub serve: Vec<u16>,
    /// Tables of the kernel side; empty when it is off.
    #[serde(default)]
    pub tables: Vec<Table>,
    /// Kernel events since the start; those about sockets are counted, even if they are not sent.
    #[serde(default)]
    pub events: Option<u64>,
    /// Missing BTF information of the running kernel, one line each.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Adjustment of the wall clock since the start, in milliseconds.
    #[serde(default)]
    pub clock_moved_ms: Option<i64>,
    /// Records compared with the journal; `None` before the first comparison.
    #[serde(default)]
    pub journal: Option<JournalState>,
    /// Connections that t3-dispatch does not carry; `None` if no port is watched for them.
    #[serde(default)]
    pub direct: Option<DirectState>,
}

/// A table of the kernel side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Capacity in entries, or bytes of the ring.
    pub size: u64,
    /// Entries in use; `None` for the ring.
    pub used: Option<u64>,
    /// An LRU table: it evicts the oldest entries, so being full is normal.
    pub forgets: bool,
}

/// A hook of the kernel side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// `category:name` of a tracepoint, or the function's name.
    pub name: String,
    /// `tracepoint`, `kprobe`, `fentry`, or `None` when it is not attached.
    pub attached: Option<String>,
    /// Cause of a missing attachment, and its effect.
    pub why: Option<String>,
}
