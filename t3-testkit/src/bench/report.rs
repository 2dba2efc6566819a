//! The measurements as data; what `--json` writes. Times are microseconds of the proxy's CPU unless
//! the name says otherwise.

use serde::{Deserialize, Serialize};

use super::{contestant::Contestant, meter::Memory, stats::Spread};

/// Everything that one run found out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Rounds that each CPU measurement was repeated.
    pub rounds: usize,
    /// Idle sessions.
    pub memory: Vec<Idle>,
    /// Messages and their answers.
    pub echo: Vec<Echo>,
    /// Bytes from serve to the browser.
    pub bulk: Vec<Bulk>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
}

/// The machine's shape, without which an absolute number says nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Processors this process may use.
    pub cores: usize,
    /// Model name of the first processor.
    pub cpu: String,
    /// Kernel release.
    pub kernel: String,
    /// HAProxy's version, if it took part.
    pub haproxy: Option<String>,
}

/// Cost of idle sessions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Idle {
    /// Of which proxy.
    pub contestant: Contestant,
    /// How many sessions.
    pub sessions: usize,
    /// Its threads.
    pub threads: usize,
    /// After one session came and went.
    pub before: Memory,
    /// With all sessions open, each after one heartbeat.
    pub with: Memory,
    /// A moment after all have ended.
    pub after: Memory,
    /// Proportional memory a session, in KiB.
    pub pss_kib: f64,
    /// Resident memory a session, in KiB.
    pub rss_kib: f64,
    /// To open a session and answer one heartbeat.
    pub open_us: f64,
    /// To end a session.
    pub close_us: f64,
    /// CPU milliseconds a second while nothing happened.
    pub idle_ms_per_s: f64,
}

/// Cost of a message and its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Echo {
    /// Of which proxy.
    pub contestant: Contestant,
    /// Payload bytes of the message, and of its answer.
    pub payload: u64,
    /// Sessions at the same time, each with one message under way.
    pub sessions: usize,
    /// Messages in one round.
    pub messages: u64,
    /// For one message and its answer.
    pub cpu_us: Spread,
    /// System calls for one message and its answer.
    pub syscalls: Option<f64>,
    /// Wall clock, at the client.
    pub p50_us: f64,
    /// Wall clock, at the client.
    pub p99_us: f64,
    /// Wall clock.
    pub messages_per_s: f64,
}

/// Cost of many bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bulk {
    /// Of which proxy.
    pub contestant: Contestant,
    /// Payload bytes of a frame.
    pub frame: u64,
    /// Sessions at the same time.
    pub sessions: usize,
    /// Bytes in one round.
    pub bytes: u64,
    /// Bytes for a second of the proxy's CPU; nothing for a direct connection.
    pub bytes_per_cpu_s: Option<Spread>,
    /// System calls for a MiB.
    pub syscalls_per_mib: Option<f64>,
    /// Bytes a second by the wall clock.
    pub bytes_per_s: f64,
}
