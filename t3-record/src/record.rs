//! The records as typed structs: one table per record names each key, its type and its meaning, and everything that encodes,
//! decodes or documents a record walks that table.
//!
//! Order matters: `user ip dur_ms cause` come first in a `ws close` and `dur_ms` and `cause` stand next to each other, because the
//! operators' Loki query matches on that text. A key that is not known is left out, never written as empty or zero.

use crate::{
    chain::Chain,
    evidence::{Burst, Fate},
    how::How,
    value::{BadValue, Percent, Value},
    words::{Cause, ClosedBy, Confidence, KernelSource, LegEnd, Segment, Side, Verdict},
};

/// A record could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// A key has a value that is not of its type.
    #[error("key {key}: {source}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        source: BadValue,
    },
    /// A key that every such record has is not there.
    #[error("key {0} is missing")]
    Missing(&'static str),
}

/// One key of a record, for documentation and for checks of dashboards and queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The key as it stands in the line.
    pub name: &'static str,
    /// Its meaning, unit and source.
    pub doc: &'static str,
    /// What its value looks like.
    pub value: &'static str,
    /// In every record, or only when known.
    pub required: bool,
}

macro_rules! record {
    (
        $(#[$meta:meta])*
        $name:ident
        required { $($(#[doc = $rdoc:literal])+ $req:ident: $rty:ty,)+ }
        optional { $($(#[doc = $odoc:literal])+ $opt:ident: $oty:ty,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $rdoc])+ pub $req: $rty,)+
            $($(#[doc = $odoc])+ pub $opt: Option<$oty>,)+
        }

        impl $name {
            /// Every key in the order of the line.
            pub const KEYS: &'static [Key] = &[
                $(Key { name: stringify!($req), doc: concat!($($rdoc),+), value: <$rty as Value>::EXPECTED, required: true },)+
                $(Key { name: stringify!($opt), doc: concat!($($odoc),+), value: <$oty as Value>::EXPECTED, required: false },)+
            ];

            /// A record with only what every record has.
            #[must_use]
            #[allow(clippy::too_many_arguments)]
            pub fn new($($req: $rty),+) -> Self {
                Self { $($req,)+ $($opt: None,)+ }
            }

            /// The known keys with their text, in the order of the line.
            #[must_use]
            pub fn pairs(&self) -> Vec<(&'static str, String)> {
                let mut pairs = vec![$((stringify!($req), Value::encode(&self.$req)),)+];
                $(if let Some(value) = &self.$opt { pairs.push((stringify!($opt), Value::encode(value))); })+
                pairs
            }

            /// A record from keys and texts. Unknown keys are ignored: a newer program may have written them.
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
        user: String,
        /// Client address: the leftmost untrusted hop of X-Forwarded-For, else the peer.
        ip: String,
        /// Milliseconds from the 101 to the end of the first leg; 0 when it never opened.
        dur_ms: u64,
        /// The coarse cause, as the old query knows it.
        cause: Cause,
        /// What happened.
        verdict: Verdict,
        /// Where the cause lies.
        segment: Segment,
        /// Session id.
        conn: String,
        /// Where kernel evidence came from.
        kernel: KernelSource,
    }
    optional {
        /// The deciding mechanism.
        how: How,
        /// Which end acted first; not the cause.
        closed_by: ClosedBy,
        /// How sure the verdict is.
        confidence: Confidence,
        /// How the browser's leg ended in the kernel.
        down_end: LegEnd,
        /// How serve's leg ended in the kernel.
        up_end: LegEnd,
        /// Status code of the close frame that came first.
        ws_code: u16,
        /// Its reason.
        ws_reason: String,
        /// From which side that frame came.
        ws_from: Side,
        /// Bytes from serve.
        up_bytes: u64,
        /// Bytes from the browser.
        down_bytes: u64,
        /// Data messages from serve.
        up_msgs: u64,
        /// Data messages from the browser.
        down_msgs: u64,
        /// Milliseconds since the last byte from serve, at the close.
        up_idle_ms: u64,
        /// Milliseconds since the last byte from the browser, at the close.
        down_idle_ms: u64,
        /// Heartbeats (pings) seen.
        hb_n: u64,
        /// Answer time of the last answered heartbeat, in milliseconds.
        hb_rtt_ms: u64,
        /// Worst answer time, in milliseconds.
        hb_rtt_max_ms: u64,
        /// Age of the last ping at the close, in milliseconds.
        hb_gap_ms: u64,
        /// Age of the oldest unanswered ping, in milliseconds, if any was unanswered.
        hb_wait_ms: u64,
        /// Learned period between pings, in milliseconds.
        hb_period_ms: u64,
        /// Smoothed round trip time of the browser's leg in microseconds (TCP_INFO): to Traefik's node, not to the browser.
        down_rtt_us: u32,
        /// Segments retransmitted on the browser's leg.
        down_retrans: u32,
        /// Segments sent to the browser's leg and not acknowledged at the close.
        down_unacked: u32,
        /// Segments considered lost on the browser's leg at the close.
        down_lost: u32,
        /// Smoothed round trip time of serve's leg in microseconds.
        up_rtt_us: u32,
        /// Segments retransmitted on serve's leg.
        up_retrans: u32,
        /// Segments sent to serve and not acknowledged at the close.
        up_unacked: u32,
        /// Segments considered lost on serve's leg at the close.
        up_lost: u32,
        /// The kernel's reason for a reset, where it gives one (6.10 and newer).
        rst_reason: String,
        /// The process behind the upstream socket.
        peer_pid: u32,
        /// Its comm.
        peer_comm: String,
        /// Its fate.
        peer_exit: Fate,
        /// Who sent the fatal signal: comm[pid].
        killed_by: String,
        /// argv of the OOM victim.
        oom_victim: String,
        /// Percent of the last 10 s in which some task of the user's cgroup stalled on memory.
        psi_mem: Percent,
        /// The same for IO.
        psi_io: Percent,
        /// The same for CPU.
        psi_cpu: Percent,
        /// Percent of the last 10 s in which all tasks of the cgroup stalled on memory.
        psi_mem_full: Percent,
        /// The same for IO.
        psi_io_full: Percent,
        /// The worst second of the last 30 s, memory (some).
        psi_mem_peak: Percent,
        /// The same for IO.
        psi_io_peak: Percent,
        /// The same for CPU.
        psi_cpu_peak: Percent,
        /// Percent of the last 10 s in which some task of the machine stalled on memory.
        host_psi_mem: Percent,
        /// The same for IO.
        host_psi_io: Percent,
        /// The same for CPU.
        host_psi_cpu: Percent,
        /// memory.current of the cgroup in bytes.
        mem_current: u64,
        /// memory.max of the cgroup in bytes; left out when unlimited.
        mem_max: u64,
        /// OOM kills in the cgroup in the last 60 s.
        oom_kills: u64,
        /// Worst delay of dispatch's own event loop in the last 30 s, in milliseconds.
        self_lag_ms: u64,
        /// Sessions/users that ended within the same second, when 5 or more.
        burst: Burst,
        /// The first events of both legs in kernel order.
        chain: Chain,
        /// The Cf-Ray request header.
        ray: String,
        /// Kernel events lost since the last record, when not 0.
        lost: u64,
    }
}

record! {
    /// `ws open`.
    OpenRecord
    required {
        /// OS user.
        user: String,
        /// Client address.
        ip: String,
        /// Session id.
        conn: String,
    }
    optional {
        /// The Cf-Ray request header.
        ray: String,
        /// The session of the same user and address that ended within the last minute.
        prev: String,
        /// How long they were cut off, in milliseconds.
        gap_ms: u64,
    }
}

record! {
    /// `ws burst`: sums up many ends within one second.
    BurstRecord
    required {
        /// Sessions that ended.
        n: u64,
        /// Users they belonged to.
        users: u64,
    }
    optional {
        /// Milliseconds between the first and the last of them.
        span_ms: u64,
    }
}

macro_rules! as_object {
    ($($name:ident),+) => {$(
        impl serde::Serialize for $name {
            /// As one JSON object of texts: the same keys and texts as the line.
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.pairs())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let map = std::collections::BTreeMap::<String, String>::deserialize(deserializer)?;
                Self::from_pairs(|key| map.get(key).map(|text| text.as_str().into())).map_err(serde::de::Error::custom)
            }
        }
    )+};
}

as_object!(CloseRecord, OpenRecord, BurstRecord);
