//! The process behind serve's socket, and its fate.

use serde::{Deserialize, Serialize};

use super::Nanos;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Thread group id (pid in user space).
    pub pid: u32,
    /// The 15 bytes of `comm`.
    pub comm: String,
}

/// The process behind the upstream socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Pid and name.
    pub task: Task,
    /// Time of its start.
    #[serde(default)]
    pub started_at: Option<Nanos>,
    /// Its fate.
    pub fate: Fate,
    /// Time of its end.
    pub ended_at: Option<Nanos>,
    /// Sender of the fatal signal, if it was a process; for a process that exited, the sender of a
    /// SIGTERM just before.
    pub killer: Option<Task>,
    /// Time of the fatal signal.
    pub signalled_at: Option<Nanos>,
    /// Last signal that asks a process to end and reached it, whatever became of it.
    #[serde(default)]
    pub stop_request: Option<StopRequest>,
    /// The process only forwards: it accepted the connection and holds a connected socket to
    /// another process or host.
    #[serde(default)]
    pub is_forwarder: bool,
    /// The argv of an OOM victim (comm is useless for programs that rename themselves).
    pub victim_argv: Option<String>,
    /// The process is stopped (SIGSTOP) or frozen by its cgroup, as `/proc/PID/stat` and
    /// `cgroup.events` report.
    pub halted: Option<Halt>,
}

impl Process {
    /// A process of which nothing else is known.
    #[must_use]
    pub const fn new(task: Task, fate: Fate) -> Self {
        Self {
            task,
            started_at: None,
            fate,
            ended_at: None,
            killer: None,
            signalled_at: None,
            stop_request: None,
            is_forwarder: false,
            victim_argv: None,
            halted: None,
        }
    }
}

/// A signal that asks a process to end (SIGTERM, SIGINT, SIGHUP, SIGQUIT).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// Signal number.
    pub signal: i32,
    /// Sender; `None` if the kernel sent it.
    pub by: Option<Task>,
    /// Time at which it was sent.
    pub at: Nanos,
}

/// Cause for which a process that is alive does not run.
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
    /// Alive.
    Alive,
    /// Exited with this status.
    Exit(i32),
    /// Terminated by this signal.
    Signal(i32),
    /// Terminated by the OOM killer.
    Oom,
}
