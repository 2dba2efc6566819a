//! Records as typed structs: one table per record has each key with its type and meaning, and the
//! encodings and the documentation use that table.
//!
//! Order matters: `user ip dur_ms cause` come first in a `ws close`, with `dur_ms` and `cause`
//! adjacent, because existing Loki queries match that text. An unknown value is omitted, never
//! written as empty or zero.

use crate::{
    chain::Chain,
    evidence::{Burst, Fate},
    how::How,
    value::{BadValue, Percent, Typed, Value},
    vocabulary::{
        Cause, ClosedBy, Confidence, HeartbeatSource, KernelSource, LegEnd, Reconciled, Segment, Side,
        Verdict,
    },
};

/// A record that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// A value is not of the key's type.
    #[error("key {key}: {source}")]
    Value {
        /// The key.
        key: &'static str,
        /// Cause.
        source: BadValue,
    },
    /// A required key is missing.
    #[error("key {0} is missing")]
    Missing(&'static str),
}

/// One key of a record, for documentation and for checks of dashboards and queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Name of the key.
    pub name: &'static str,
    /// Its meaning, unit and source.
    pub doc: &'static str,
    /// Kind of value.
    pub value: &'static str,
    /// Source.
    pub source: &'static str,
    /// Example value.
    pub example: &'static str,
    /// True if every record has it.
    pub required: bool,
}

macro_rules! record {
    (
        $(#[$meta:meta])*
        $name:ident
        required { $($(#[doc = $rdoc:literal])+ [$rsrc:literal, $rex:literal] $req:ident: $rty:ty,)+ }
        optional { $($(#[doc = $odoc:literal])+ [$osrc:literal, $oex:literal] $opt:ident: $oty:ty,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $rdoc])+ pub $req: $rty,)+
            $($(#[doc = $odoc])+ pub $opt: Option<$oty>,)+
        }

        impl $name {
            /// All keys in the order of the line.
            pub const KEYS: &'static [Key] = &[
                $(Key {
                    name: stringify!($req), doc: concat!($($rdoc),+), value: <$rty as Value>::EXPECTED,
                    source: $rsrc, example: $rex, required: true,
                },)+
                $(Key {
                    name: stringify!($opt), doc: concat!($($odoc),+), value: <$oty as Value>::EXPECTED,
                    source: $osrc, example: $oex, required: false,
                },)+
            ];

            /// Creates a record with the required keys.
            #[must_use]
            #[allow(clippy::too_many_arguments)]
            pub fn new($($req: $rty),+) -> Self {
                Self { $($req,)+ $($opt: None,)+ }
            }

            /// Keys and texts of the known values, in the order of the line.
            #[must_use]
            pub fn pairs(&self) -> Vec<(&'static str, String)> {
                let mut pairs = vec![$((stringify!($req), Value::encode(&self.$req)),)+];
                $(if let Some(value) = &self.$opt { pairs.push((stringify!($opt), Value::encode(value))); })+
                pairs
            }

            /// Writes the keys with their values into an object: numbers as numbers.
            ///
            /// # Errors
            /// Those of the serializer.
            pub fn serialize_into<M: serde::ser::SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                $(map.serialize_entry(stringify!($req), &Typed(&self.$req))?;)+
                $(if let Some(value) = &self.$opt { map.serialize_entry(stringify!($opt), &Typed(value))?; })+
                Ok(())
            }

            /// Parses keys and texts. Unknown keys are ignored, because a newer program may have
            /// written them.
            ///
            /// # Errors
            /// [`BadRecord`] names the key that is missing or has a bad value.
            pub fn from_pairs<'a>(
                mut find: impl FnMut(&'static str) -> Option<std::borrow::Cow<'a, str>>,
            ) -> Result<Self, BadRecord> {
                Ok(Self {
                    $($req: read(stringify!($req), find(stringify!($req)))?.ok_or(BadRecord::Missing(stringify!($req)))?,)+
                    $($opt: read(stringify!($opt), find(stringify!($opt)))?,)+
                })
            }
        }
    };
}

fn read<T: Value>(
    key: &'static str,
    text: Option<std::borrow::Cow<'_, str>>,
) -> Result<Option<T>, BadRecord> {
    text.map(|text| T::decode(&text).map_err(|source| BadRecord::Value { key, source })).transpose()
}

record! {
    /// `ws close`: one per WebSocket, also for one that never opened.
    CloseRecord
    required {
        /// OS user.
        ["dispatch: request", "wizard"] user: String,
        /// Client address: the header named by `--client-ip-header`, else the rightmost untrusted
        /// hop of X-Forwarded-For, else the peer.
        ["dispatch: request", "203.0.113.7"] ip: String,
        /// Milliseconds from the 101 to the end of the first leg; 0 when it never opened.
        ["dispatch: relay", "61873"] dur_ms: u64,
        /// Coarse cause, for queries written before `verdict` existed.
        ["verdict", "upstream_closed"] cause: Cause,
        /// Classification of the close (docs/VERDICTS.md).
        ["verdict", "serve_oom"] verdict: Verdict,
        /// Location of the cause.
        ["verdict", "serve"] segment: Segment,
        /// Session id.
        ["dispatch: request", "k3v9q0a1b2c3d"] conn: String,
        /// Source of the kernel evidence.
        ["t3-trace", "kprobe"] kernel: KernelSource,
    }
    optional {
        /// Mechanism that decided the verdict.
        ["verdict", "oom"] how: How,
        /// End that acted first; not the cause.
        ["verdict", "upstream"] closed_by: ClosedBy,
        /// Confidence of the verdict: `proven` by events, or `likely`.
        ["verdict", "proven"] confidence: Confidence,
        /// End of the downstream leg as the kernel reported it.
        ["kernel events, else the relay", "fin_out"] down_end: LegEnd,
        /// End of the upstream leg as the kernel reported it.
        ["kernel events, else the relay", "rst_in"] up_end: LegEnd,
        /// Status code of the first Close frame.
        ["dispatch: frames", "1000"] ws_code: u16,
        /// Reason text of the first Close frame.
        ["dispatch: frames", "bye"] ws_reason: String,
        /// Leg on which the first Close frame arrived.
        ["dispatch: frames", "down"] ws_from: Side,
        /// Bytes received from serve.
        ["dispatch: relay", "918231"] up_bytes: u64,
        /// Bytes received from the client.
        ["dispatch: relay", "20114"] down_bytes: u64,
        /// Data messages received from serve.
        ["dispatch: relay", "412"] up_msgs: u64,
        /// Data messages received from the client.
        ["dispatch: relay", "77"] down_msgs: u64,
        /// Milliseconds since the last byte from serve, at the first Close frame or end; later
        /// bytes do not count.
        ["dispatch: relay", "4021"] up_idle_ms: u64,
        /// Milliseconds since the last byte from the client, at the close.
        ["dispatch: relay", "12"] down_idle_ms: u64,
        /// Heartbeat pings received.
        ["dispatch: heartbeat frames", "12"] hb_n: u64,
        /// RTT of the last answered heartbeat in milliseconds.
        ["dispatch: heartbeat frames", "1"] hb_rtt_ms: u64,
        /// Highest heartbeat RTT in milliseconds.
        ["dispatch: heartbeat frames", "48"] hb_rtt_max_ms: u64,
        /// Age of the last ping at the close in milliseconds.
        ["dispatch: heartbeat frames", "2000"] hb_gap_ms: u64,
        /// Age of the oldest unanswered ping in milliseconds; omitted if every ping was answered.
        ["dispatch: heartbeat frames", "15003"] hb_wait_ms: u64,
        /// Learned period between pings in milliseconds.
        ["dispatch: heartbeat frames", "5000"] hb_period_ms: u64,
        /// How heartbeats were recognised; `none` if they were not.
        ["dispatch: heartbeat frames", "text"] hb_by: HeartbeatSource,
        /// Negotiated WebSocket extensions.
        ["dispatch: response of serve", "permessage-deflate"] ext: String,
        /// Version that serve's process reported, when an answer with it has passed.
        ["dispatch: response of serve", "0.0.42"] serve_version: String,
        /// Milliseconds since the last frame of any kind from serve, at the first Close frame or
        /// end; of a session that never opened, since the upgrade, if serve did not answer it.
        ["dispatch: frames", "15004"] up_silent_ms: u64,
        /// Bytes from serve that waited for the client: held by dispatch, or in its socket and not
        /// acknowledged; omitted when 0.
        ["dispatch: relay, SIOCOUTQ", "183204"] up_queued: u64,
        /// Bytes from serve that the client had not acknowledged when the session ended: they were
        /// not delivered; omitted when 0.
        ["dispatch: relay, SIOCOUTQ", "24571"] up_undelivered: u64,
        /// The same of bytes from the client that serve had not acknowledged.
        ["dispatch: relay, SIOCOUTQ", "34478"] down_undelivered: u64,
        /// Smoothed RTT of the downstream leg in microseconds: to the TCP peer (Traefik's node),
        /// not to the browser.
        ["TCP_INFO", "412"] down_rtt_us: u32,
        /// Segments retransmitted on the downstream leg.
        ["TCP_INFO", "2"] down_retrans: u32,
        /// Segments sent on the downstream leg and not acknowledged at the close.
        ["TCP_INFO", "1"] down_unacked: u32,
        /// Segments considered lost on the downstream leg at the close.
        ["TCP_INFO", "0"] down_lost: u32,
        /// Smoothed RTT of the upstream leg in microseconds.
        ["TCP_INFO", "23"] up_rtt_us: u32,
        /// Segments retransmitted on the upstream leg.
        ["TCP_INFO", "0"] up_retrans: u32,
        /// Segments sent on the upstream leg and not acknowledged at the close.
        ["TCP_INFO", "0"] up_unacked: u32,
        /// Segments considered lost on the upstream leg at the close.
        ["TCP_INFO", "0"] up_lost: u32,
        /// The kernel's reason for an RST (6.10 and newer).
        ["tcp_send_reset, tcp_receive_reset", "TCP_ABORT_ON_CLOSE"] rst_reason: String,
        /// PID of the process that owns the upstream socket.
        ["closing task, else procfs", "4242"] peer_pid: u32,
        /// uid of that process, or of the process on serve's port that dispatch did not connect to.
        ["sock_diag", "1001"] peer_uid: u32,
        /// comm of that process.
        ["closing task, else procfs", "node"] peer_comm: String,
        /// State of that process: alive, or the way it ended.
        ["sched_process_exit, oom:mark_victim", "sig:9"] peer_exit: Fate,
        /// Sender of the fatal signal, or of the signal after which the process exited by itself:
        /// comm, and PID in brackets.
        ["signal_generate", "bash[77]"] killed_by: String,
        /// argv of the OOM victim.
        ["oom:mark_victim, procfs", "node /usr/bin/t3 serve"] oom_victim: String,
        /// PSI of serve's cgroup: percent of the last 10 s in which some task waited for memory.
        ["PSI of the cgroup", "3.1"] psi_mem: Percent,
        /// The same for IO.
        ["PSI of the cgroup", "3.1"] psi_io: Percent,
        /// The same for CPU.
        ["PSI of the cgroup", "3.1"] psi_cpu: Percent,
        /// PSI of serve's cgroup: percent of the last 10 s in which all tasks waited for memory.
        ["PSI of the cgroup", "3.1"] psi_mem_full: Percent,
        /// The same for IO.
        ["PSI of the cgroup", "3.1"] psi_io_full: Percent,
        /// PSI of serve's cgroup: worst second of the last 30 s, memory (some).
        ["PSI of the cgroup", "3.1"] psi_mem_peak: Percent,
        /// The same for IO.
        ["PSI of the cgroup", "3.1"] psi_io_peak: Percent,
        /// The same for CPU.
        ["PSI of the cgroup", "3.1"] psi_cpu_peak: Percent,
        /// PSI of the host: percent of the last 10 s in which some task waited for memory.
        ["PSI of the host", "3.1"] host_psi_mem: Percent,
        /// The same for IO.
        ["PSI of the host", "3.1"] host_psi_io: Percent,
        /// The same for CPU.
        ["PSI of the host", "3.1"] host_psi_cpu: Percent,
        /// memory.current of the cgroup in bytes.
        ["cgroup v2", "25769803776"] mem_current: u64,
        /// memory.max of the cgroup in bytes; omitted when unlimited.
        ["cgroup v2", "25769803776"] mem_max: u64,
        /// OOM kills in the cgroup in the last 60 s.
        ["cgroup v2", "1"] oom_kills: u64,
        /// Times that tasks of the cgroup were throttled at memory.high in the last 60 s; omitted
        /// when 0.
        ["cgroup v2", "14"] mem_high: u64,
        /// Free swap of the host in bytes; omitted on a host without swap.
        ["sysinfo(2)", "2147483648"] swap_free: u64,
        /// Highest delay of the event loop of t3-dispatch in the last 30 s, in milliseconds.
        ["dispatch: event loop", "3"] self_lag_ms: u64,
        /// Sum of the delays of the event loop of t3-dispatch between the last answered heartbeat
        /// and the first act, in milliseconds; omitted when 0.
        ["dispatch: event loop", "3526"] lag_ms: u64,
        /// Time in milliseconds in which the host did not run, in the same interval; omitted when
        /// 0.
        ["dispatch: clocks", "12503"] pause_ms: u64,
        /// Number of times a restarted t3-dispatch continued the session; omitted when 0.
        ["dispatch: restart", "2"] resumed: u32,
        /// Age of the last such restart at the close in milliseconds.
        ["dispatch: restart", "90210"] resumed_ms: u64,
        /// Sessions/users cut within the same second, if 5 or more.
        ["dispatch: all closes", "12/4"] burst: Burst,
        /// The first events of both legs in kernel order.
        ["kernel events, else the relay", "up:peer_oom@-3,up:rst_in@0,down:rst_out@1"] chain: Chain,
        /// The Cf-Ray request header.
        ["dispatch: request", "8c1f0000abcd1234-LHR"] ray: String,
        /// Kernel events lost since the last record; omitted when 0.
        ["t3-trace", "3"] lost: u64,
        /// Origin of a record that t3-trace wrote after the session had ended; omitted in others.
        ["t3-trace", "journal"] reconciled: Reconciled,
        /// Wall-clock time of the end, or of the last sign of life, in UTC (RFC 3339). Only in such
        /// a record, because the time of its entry is later.
        ["t3-trace", "2026-03-01T02:13:45.120Z"] ended_at: String,
    }
}

record! {
    /// `ws open`.
    OpenRecord
    required {
        /// OS user.
        ["dispatch: request", "wizard"] user: String,
        /// Client address.
        ["dispatch: request", "203.0.113.7"] ip: String,
        /// Session id.
        ["dispatch: request", "k3v9q0a1b2c3d"] conn: String,
    }
    optional {
        /// The Cf-Ray request header.
        ["dispatch: request", "8c1f0000abcd1234-LHR"] ray: String,
        /// Session of the same user and address that closed within the last minute.
        ["dispatch: request", "a81kq0d9x2m4r"] prev: String,
        /// Time offline in milliseconds, from the first Close frame of that session or, without
        /// one, the end of its first leg.
        ["dispatch: request", "3120"] gap_ms: u64,
        /// dispatch keeps the session in a descriptor store, so that it may survive a restart of
        /// dispatch; omitted when it does not.
        ["dispatch: start", "true"] kept: bool,
    }
}

record! {
    /// `ws burst`: summary of a mass disconnect (five or more sessions within one second).
    BurstRecord
    required {
        /// Sessions cut.
        ["dispatch: all closes", "20"] n: u64,
        /// Users of these sessions.
        ["dispatch: all closes", "5"] users: u64,
    }
    optional {
        /// Milliseconds between the first and the last close.
        ["dispatch: all closes", "380"] span_ms: u64,
    }
}

record! {
    /// `ws attempts`: connections of one minute that ended before a complete request was read.
    AttemptsRecord
    required {
        /// Connections.
        ["dispatch: connections", "3"] n: u64,
        /// Those that waited a second or longer for dispatch itself.
        ["dispatch: connections", "2"] late: u64,
        /// Those that sent a part of a request, or reset the connection before it was read.
        ["dispatch: connections", "1"] partial: u64,
        /// Those that sent nothing in a second or longer.
        ["dispatch: connections", "0"] empty: u64,
        /// Longest time from the TCP handshake to the end, in milliseconds.
        ["TCP_INFO, dispatch: connections", "9120"] wait_ms: u64,
    }
    optional {
        /// Highest delay of the event loop of t3-dispatch in the 30 s before the end of each, in
        /// milliseconds.
        ["dispatch: event loop", "9000"] self_lag_ms: u64,
    }
}

mod tcp_close;
pub use tcp_close::TcpCloseRecord;

/// A value of an object: text, or a number, true or false as [`Value::serialize`] writes it.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum JsonValue {
    Text(String),
    Bool(bool),
    Whole(u64),
    Real(f64),
}

impl JsonValue {
    fn text(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Bool(value) => value.to_string().into(),
            Self::Whole(value) => value.to_string().into(),
            Self::Real(value) => value.to_string().into(),
        }
    }
}

/// A record whose values are written as text: between daemons of different versions, the form that
/// all of them read.
pub(crate) trait AsTexts {
    fn texts(&self) -> Vec<(&'static str, String)>;
}

impl<T: AsTexts> AsTexts for Box<T> {
    fn texts(&self) -> Vec<(&'static str, String)> {
        self.as_ref().texts()
    }
}

pub(crate) fn as_texts<S: serde::Serializer>(
    record: &impl AsTexts,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(record.texts())
}

macro_rules! as_object {
    ($($name:ident),+) => {$(
        impl serde::Serialize for $name {
            /// Formats the record as a JSON object: numbers as numbers, all else as in the line.
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                self.serialize_into(&mut map)?;
                serde::ser::SerializeMap::end(map)
            }
        }

        impl AsTexts for $name {
            fn texts(&self) -> Vec<(&'static str, String)> {
                self.pairs()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let map = std::collections::BTreeMap::<String, JsonValue>::deserialize(deserializer)?;
                Self::from_pairs(|key| map.get(key).map(JsonValue::text)).map_err(serde::de::Error::custom)
            }
        }
    )+};
}

as_object!(CloseRecord, OpenRecord, BurstRecord, AttemptsRecord, TcpCloseRecord);
