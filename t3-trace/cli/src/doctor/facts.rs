//! Facts for the checks, or the reason why a fact is not available. Plain values.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use t3_config::unit_files::HiddenUnit;
use t3_record::wire::{Hook, Status};

/// A fact, or the reason why it is not known.
pub type Collected<T> = Result<T, String>;

/// All facts.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Caller.
    pub caller: Caller,
    /// Path of the evidence socket.
    pub socket: PathBuf,
    pub daemon: Daemon,
    /// Heartbeats of the open sessions; `None` if dispatch does not report them.
    pub heartbeats: Option<Heartbeats>,
    pub kernel: Kernel,
    pub host: Host,
    /// Local processes whose identity headers t3-dispatch trusts.
    pub trust: Collected<LocalTrust>,
    /// serves of the routing table.
    pub serves: Result<Vec<Serve>, TableError>,
    pub journal: Journal,
    /// Packaged units that another file hides.
    pub hidden_units: Vec<HiddenUnit>,
    /// systemd units by name; empty without systemd.
    pub units: BTreeMap<String, Unit>,
}

/// Local processes whose identity headers t3-dispatch trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalTrust {
    /// Users without root, as configured, and whether a user can log in as them (uid 1000 or
    /// above).
    pub users: Vec<(String, bool)>,
    /// They need the proxy secret as well.
    pub secret: bool,
}

/// Caller of `doctor`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caller {
    /// Effective uid.
    pub uid: u32,
}

impl Caller {
    /// Whether the caller is root.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// Result of a status query to the daemon.
#[derive(Debug, Clone, PartialEq)]
pub enum Daemon {
    /// Status received.
    Answers(Box<Status>),
    /// No daemon at the socket.
    Absent,
    /// No permission for the socket.
    Denied {
        /// Group with permission.
        group: String,
    },
    /// Another failure.
    Unexpected(String),
}

impl Daemon {
    /// Status, if received.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Answers(status) => Some(status),
            _ => None,
        }
    }
}

/// Open sessions that should have a heartbeat by their age.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heartbeats {
    /// Their number.
    pub sessions: usize,
    /// Those in which none was recognised.
    pub without: usize,
}

/// The kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Presence of BTF.
    pub btf: Presence,
    /// Lockdown mode; `None` without lockdown.
    pub lockdown: Option<String>,
    /// Limit of locked memory.
    pub memlock: Option<Memlock>,
    pub hooks: Hooks,
}

/// Presence of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    Present,
    Missing,
    /// Not readable, with the reason.
    Unreadable(String),
}

/// `RLIMIT_MEMLOCK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memlock {
    /// True for the limit of the daemon, false for that of this process.
    pub of_daemon: bool,
    /// Bytes; `None` is unlimited.
    pub bytes: Option<u64>,
}

/// Hooks, by source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hooks {
    /// Reported by the running daemon.
    Running(Vec<Hook>),
    /// Attached and detached as a test.
    Tried(Collected<Vec<Hook>>),
    /// Name, and whether the kernel has it; not attached.
    Offered(Collected<Vec<(String, bool)>>),
}

#[derive(Debug, Clone)]
pub struct Host {
    /// Pressure files: `memory`, `io`, `cpu`.
    pub pressure: Vec<(&'static str, Pressure)>,
    pub cgroups: Cgroups,
    pub clock: Clock,
}

/// A pressure file.
#[derive(Debug, Clone, PartialEq)]
pub enum Pressure {
    /// PSI some, 10 s, in percent.
    Some(f32),
    /// The kernel was built without PSI.
    Missing,
    /// Disabled at boot.
    Off,
    /// Not readable, with the reason.
    Unreadable(String),
}

/// Mounted cgroup versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Mount point of version 2.
    pub v2: Option<PathBuf>,
    /// Controllers of version 1.
    pub v1: Vec<String>,
}

/// State of the wall clock (adjtimex(2)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clock {
    /// Synchronised; `None` if unknown.
    pub synchronised: Option<bool>,
    /// Maximum error in milliseconds.
    pub error_ms: u64,
}

/// Reason why the routing table is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableError {
    Unreadable(String),
    Malformed(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Serve {
    /// OS user in the routing table.
    pub user: String,
    pub port: u16,
    /// Listener on the port.
    pub process: Listener,
    /// Unit, from the name of its cgroup.
    pub unit: Option<String>,
    /// Memory limits of its cgroup, then of each ancestor.
    pub levels: Vec<Level>,
    /// `memory.oom.group`.
    pub oom_group: Option<bool>,
    /// Whether its cgroup has pressure files; `None` without a cgroup.
    pub pressure: Option<bool>,
}

/// Listener on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    Absent,
    /// A socket listens on the port on this address only, which t3-dispatch does not connect to.
    Elsewhere(IpAddr),
    /// A process that the caller may not inspect.
    Unknown,
    Process {
        pid: u32,
        comm: String,
    },
}

/// Memory limits of one cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Level {
    pub name: String,
    /// `memory.high` in bytes; `None` is unlimited.
    pub high: Option<u64>,
    /// `memory.max` in bytes; `None` is unlimited.
    pub max: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct Journal {
    /// Whether journald accepts entries.
    pub accepts: Collected<()>,
    /// Read access.
    pub access: Access,
    /// Persistent storage.
    pub persistent: bool,
    /// Settings of journald.
    pub conf: JournaldConf,
    /// Dropped entries of t3-dispatch and t3-trace in the last week, oldest first.
    pub suppressed: Collected<Vec<Suppressed>>,
    /// File system of the journal.
    pub space: Option<Space>,
    /// An entry like a record, written and searched for.
    pub test_entry: TestEntry,
}

/// Result of a test entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestEntry {
    /// In the journal.
    Found,
    /// journald accepted it, and it is not in the journal.
    Missing,
    /// Not written: the caller is not root.
    NotRoot,
    /// Not written, with the reason.
    NotSent(String),
    /// Written; it is unknown whether it was kept, with the reason.
    NotSearched(String),
}

/// Settings of journald.conf and its drop-ins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournaldConf {
    /// Rate limit.
    pub limit: Limit,
    /// `MaxLevelStore=`.
    pub max_level: Option<Setting>,
    /// `Storage=`.
    pub storage: Option<Setting>,
}

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Value in lower case.
    pub value: String,
    /// File with the setting.
    pub from: String,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Directory on it.
    pub path: PathBuf,
    /// Free bytes.
    pub free: u64,
    pub read_only: bool,
}

/// Read access to the system journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    Granted,
    Denied,
    /// There are no journal files.
    NoFiles,
}

/// Rate limit: entries of one unit per interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Interval in microseconds; 0 is unlimited.
    pub interval_us: u64,
    /// Entries; 0 is unlimited.
    pub burst: u64,
    /// File with the setting.
    pub from: String,
}

/// A report of journald about dropped entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppressed {
    /// Unit of the entries.
    pub unit: String,
    /// Number of entries.
    pub entries: u64,
    /// Local time.
    pub at: String,
}

/// Properties of a systemd unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// `LoadState`.
    pub load: String,
    /// `ActiveState`.
    pub active: String,
    /// `OOMPolicy`; none for unit types without it.
    pub oom_policy: Option<String>,
    /// `LogRateLimitIntervalUSec`, in microseconds.
    pub log_interval_us: u64,
    /// `LogRateLimitBurst`.
    pub log_burst: u64,
    /// `FileDescriptorStoreMax`; none for unit types without it.
    pub fd_store_max: Option<u64>,
    /// `LogLevelMax`, a name or a number.
    pub log_level_max: Option<String>,
    /// Unit file, then drop-ins.
    pub files: Vec<PathBuf>,
}

impl Unit {
    /// Whether the unit exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.load != "not-found"
    }
}
