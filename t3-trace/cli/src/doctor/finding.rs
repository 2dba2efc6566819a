//! Finding: result of one check, with state, text and advice.

use serde::Serialize;

/// State of a finding, ordered from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As expected.
    Ok,
    /// This host lacks a feature, or it could not be checked.
    Note,
    /// Works now, but a known risk.
    Warning,
    /// Expected to work and does not.
    Broken,
}

impl State {
    /// Word in the report, in capitals if broken.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Broken => "BROKEN",
        }
    }
}

macro_rules! checks {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal in $area:literal,)+) => {
        /// All checks. Their names are for scripts and docs/DOCTOR.md and do not change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        pub enum Check {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $name,)+
        }

        impl Check {
            /// All checks, in the order of the report.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Name of the check.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// Heading of its section in the report.
            #[must_use]
            pub const fn area(self) -> &'static str {
                match self { $(Self::$name => $area),+ }
            }
        }
    };
}

checks! {
    /// The daemon accepts queries.
    Daemon = "daemon" in "t3-trace",
    /// The caller has permission.
    Permission = "permission" in "t3-trace",
    /// The daemon is of the same release.
    Version = "version" in "t3-trace",
    /// t3-dispatch is connected.
    Dispatch = "dispatch" in "t3-trace",
    /// dispatch recognises the heartbeats of the open sessions.
    Heartbeats = "heartbeats" in "t3-trace",
    /// A restart of t3-dispatch ends no session.
    Restart = "restart" in "t3-trace",
    /// Every record is in the journal.
    Records = "records" in "t3-trace",
    /// Every connection that dispatch did not carry got its record.
    Direct = "direct" in "t3-trace",
    /// No kernel event was lost.
    Loss = "loss" in "t3-trace",
    /// The eBPF maps have room.
    Tables = "tables" in "t3-trace",
    /// The kernel has BTF.
    Btf = "btf" in "kernel",
    /// A hook is attached.
    Hook = "hook" in "kernel",
    /// eBPF programs may read the kernel.
    Lockdown = "lockdown" in "kernel",
    /// The limit of locked memory is sufficient for the maps.
    Memlock = "memlock" in "kernel",
    /// The kernel has PSI.
    Pressure = "pressure" in "host",
    /// Cgroup version 2 is mounted.
    Cgroups = "cgroups" in "host",
    /// The wall clock is synchronised.
    Clock = "clock" in "host",
    /// No local user can impersonate another one.
    Impersonation = "impersonation" in "host",
    /// No unit file hides a packaged one.
    Units = "units" in "host",
    /// The routing table is readable.
    Routes = "routes" in "serves",
    /// A process listens on the port of a route.
    Serve = "serve" in "serves",
    /// No soft memory limit.
    MemoryHigh = "memory-high" in "serves",
    /// A hard memory limit.
    MemoryMax = "memory-max" in "serves",
    /// An OOM kill of one process does not stop the unit.
    OomPolicy = "oom-policy" in "serves",
    /// serve's cgroup has PSI.
    ServePressure = "serve-pressure" in "serves",
    /// journald accepts entries.
    Journald = "journald" in "journal",
    /// The journal keeps entries with the priority and size of a record.
    JournalKeeps = "journal-keeps" in "journal",
    /// The journal is readable.
    JournalAccess = "journal-access" in "journal",
    /// The journal is persistent.
    JournalStorage = "journal-storage" in "journal",
    /// The rate limit of journald does not drop bursts of records.
    RateLimit = "rate-limit" in "journal",
    /// journald has dropped no entries.
    Suppressed = "suppressed" in "journal",
}

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: Check,
    /// Subject, if a check has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    pub state: State,
    /// Result as a text.
    pub says: String,
    /// Advice.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    /// A finding with the state ok.
    #[must_use]
    pub fn ok(check: Check, says: impl Into<String>) -> Self {
        Self { check, about: None, state: State::Ok, says: says.into(), advice: None }
    }

    /// A finding with another state; empty advice is left out.
    #[must_use]
    pub fn of(check: Check, state: State, says: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = Some(advice.into()).filter(|advice| !advice.is_empty());
        Self { check, about: None, state, says: says.into(), advice }
    }

    /// Sets the subject.
    #[must_use]
    pub fn about(mut self, what: impl Into<String>) -> Self {
        self.about = Some(what.into());
        self
    }
}

/// The worst state.
#[must_use]
pub fn worst(findings: &[Finding]) -> State {
    findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
}
