//! Measurements as data, for `--json`. A time is CPU time of the proxy in microseconds unless its
//! name has another unit.

use serde::{Deserialize, Serialize};

use super::{contestant::Contestant, meter::Memory, stats::Spread};

/// Result of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    /// Number of rounds of each CPU measurement.
    pub rounds: usize,
    /// Idle sessions.
    pub memory: Vec<Idle>,
    /// Messages and their replies.
    pub echo: Vec<Echo>,
    /// Bytes from backend to client.
    pub bulk: Vec<Bulk>,
    /// Missing measurements, with the reasons.
    pub notes: Vec<String>,
}

/// The host, on which absolute numbers depend.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Number of processors that this process may use.
    pub cores: usize,
    /// Model name of the first processor.
    pub cpu: String,
    /// Kernel release.
    pub kernel: String,
    /// HAProxy's version, if it was measured.
    pub haproxy: Option<String>,
}

/// Cost of idle sessions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Idle {
    pub contestant: Contestant,
    /// Number of sessions.
    pub sessions: usize,
    /// Number of threads of the proxy.
    pub threads: usize,
    /// Memory after one session has opened and closed.
    pub before: Memory,
    /// Memory with all sessions open, each after one heartbeat.
    pub with: Memory,
    /// Memory after all have ended.
    pub after: Memory,
    /// Proportional memory per session.
    pub pss_kib: f64,
    /// Resident memory per session.
    pub rss_kib: f64,
    /// Opening a session, with one heartbeat.
    pub open_us: f64,
    /// Closing a session.
    pub close_us: f64,
    /// CPU milliseconds per second while all sessions are idle.
    pub idle_ms_per_s: f64,
}

/// Cost of a message and its reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Echo {
    pub contestant: Contestant,
    /// Payload bytes of the message and of its reply.
    pub payload: u64,
    /// Number of concurrent sessions, each with one message in flight.
    pub sessions: usize,
    /// Messages in one round.
    pub messages: u64,
    /// For one message and its reply.
    pub cpu_us: Spread,
    /// System calls for one message and its reply.
    pub syscalls: Option<f64>,
    /// Wall-clock time at the client.
    pub p50_us: f64,
    /// Wall-clock time at the client.
    pub p99_us: f64,
    /// By wall-clock time.
    pub messages_per_s: f64,
}

/// Cost of bulk data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bulk {
    pub contestant: Contestant,
    /// Payload bytes of a frame.
    pub frame: u64,
    /// Number of concurrent sessions.
    pub sessions: usize,
    /// Bytes in one round.
    pub bytes: u64,
    /// Bytes per second of the proxy's CPU; `None` for a direct connection.
    pub bytes_per_cpu_s: Option<Spread>,
    /// System calls per MiB.
    pub syscalls_per_mib: Option<f64>,
    /// Bytes per second by wall-clock time.
    pub bytes_per_s: f64,
}
