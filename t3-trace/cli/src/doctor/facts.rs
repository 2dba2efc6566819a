//! What the checks look at: facts as they were found, and, where they could not be, why not. Plain
//! values; judges nothing and reads nothing.

use std::{collections::BTreeMap, path::PathBuf};

use t3_record::wire::{Hook, Status};

/// A fact, or in a sentence why it is not known.
pub type Collected<T> = Result<T, String>;

/// Everything.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who asks.
    pub caller: Caller,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The daemon.
    pub daemon: Daemon,
    /// The kernel.
    pub kernel: Kernel,
    /// The machine.
    pub machine: Machine,
    /// Who is served where.
    pub serves: Result<Vec<Serve>, NoTable>,
    /// The journal.
    pub journal: Journal,
    /// Units of systemd by name; none where it does not run.
    pub units: BTreeMap<String, Unit>,
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Its effective uid.
    pub uid: u32,
}

impl Caller {
    /// The one who sees everything.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// What came of asking the daemon.
#[derive(Debug, Clone, PartialEq)]
pub enum Daemon {
    /// It answers.
    Answers(Box<Status>),
    /// Nobody does.
    Absent,
    /// Its socket may not be used; whose it is.
    Denied {
        /// The group that may.
        group: String,
    },
    /// Something else, in a sentence.
    Strange(String),
}

impl Daemon {
    /// How it is, if it answers.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Answers(status) => Some(status),
            _ => None,
        }
    }
}

/// The kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// As `uname -r` says.
    pub release: String,
    /// Its type information.
    pub btf: Presence,
    /// The mode of lockdown; `None` where there is none.
    pub lockdown: Option<String>,
    /// How much memory may be locked.
    pub memlock: Option<Memlock>,
    /// The hooks.
    pub hooks: Hooks,
}

/// Is a file there?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// Yes.
    There,
    /// No.
    Missing,
    /// It cannot be read, and why.
    Unreadable(String),
}

/// `RLIMIT_MEMLOCK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memlock {
    /// Whose: the daemon's, or this program's own.
    pub of_daemon: bool,
    /// In bytes; `None` for no limit.
    pub bytes: Option<u64>,
}

/// How the hooks became known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hooks {
    /// The running daemon says so.
    Running(Vec<Hook>),
    /// We have tried, and let go again.
    Tried(Collected<Vec<Hook>>),
    /// Only read: a name, and whether the kernel has it.
    Offered(Collected<Vec<(String, bool)>>),
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its pressure files: `memory`, `io`, `cpu`.
    pub pressure: Vec<(&'static str, Pressure)>,
    /// Its cgroups.
    pub cgroups: Cgroups,
    /// Its wall clock.
    pub clock: Clock,
}

/// A pressure file.
#[derive(Debug, Clone, PartialEq)]
pub enum Pressure {
    /// It is there; percent of the last 10 s in which some task stalled.
    Some(f32),
    /// The kernel was built without.
    Missing,
    /// Switched off at boot.
    Off,
    /// It cannot be read, and why.
    Unreadable(String),
}

/// Which versions of cgroups are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Where version 2 is.
    pub v2: Option<PathBuf>,
    /// Controllers of version 1.
    pub v1: Vec<String>,
}

/// The wall clock, as the kernel's clock discipline sees it (adjtimex(2)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clock {
    /// Something keeps it right; `None` where that cannot be asked.
    pub synchronised: Option<bool>,
    /// How wrong it may be, in milliseconds.
    pub error_ms: u64,
}

/// Why there is no routing table, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTable {
    /// It cannot be read.
    Unreadable(String),
    /// It is none.
    Malformed(String),
}

/// A serve.
#[derive(Debug, Clone, PartialEq)]
pub struct Serve {
    /// The OS user, by the routing table.
    pub user: String,
    /// Its port.
    pub port: u16,
    /// What listens there.
    pub process: Listener,
    /// Its unit, as its cgroup is named.
    pub unit: Option<String>,
    /// Its limits, of its own cgroup first and then of each above.
    pub levels: Vec<Level>,
    /// `memory.oom.group`.
    pub oom_group: Option<bool>,
    /// Its cgroup has pressure files; `None` without a cgroup.
    pub pressure: Option<bool>,
}

/// What listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    /// Nothing.
    Nobody,
    /// Something that we may not look at.
    Unseen,
    /// This.
    Process {
        /// Its id.
        pid: u32,
        /// Its name.
        comm: String,
    },
}

/// Memory limits of one cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Level {
    /// Its name.
    pub name: String,
    /// `memory.high` in bytes; `None` for no limit.
    pub high: Option<u64>,
    /// `memory.max` in bytes; `None` for no limit.
    pub max: Option<u64>,
}

/// The journal.
#[derive(Debug, Clone)]
pub struct Journal {
    /// journald takes entries.
    pub takes: Collected<()>,
    /// We may read it.
    pub access: Access,
    /// It outlives a restart of the machine.
    pub persistent: bool,
    /// journald's own limit.
    pub limit: Limit,
    /// What it dropped of ours in the last week, oldest first.
    pub suppressed: Collected<Vec<Suppressed>>,
}

/// May the system's journal be read?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Yes.
    Granted,
    /// No.
    Denied,
    /// There are no files of it.
    Nothing,
}

/// How many entries of one unit journald takes in a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The time, in microseconds; 0 for no limit.
    pub interval_us: u64,
    /// How many; 0 for no limit.
    pub burst: u64,
    /// Where that stands.
    pub from: String,
}

/// journald said that it dropped entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppressed {
    /// Whose.
    pub unit: String,
    /// How many.
    pub entries: u64,
    /// When, by the clock on the wall.
    pub at: String,
}

/// A unit as systemd has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// `LoadState`.
    pub load: String,
    /// `ActiveState`.
    pub active: String,
    /// `OOMPolicy`; none for kinds that have none.
    pub oom_policy: Option<String>,
    /// `LogRateLimitIntervalUSec`, in microseconds.
    pub log_interval_us: u64,
    /// `LogRateLimitBurst`.
    pub log_burst: u64,
    /// Its files: its own, then drop-ins.
    pub files: Vec<PathBuf>,
}

impl Unit {
    /// There is such a unit.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.load != "not-found"
    }
}
