//! What a check comes to: which check, about what, how good, in a sentence, and what to do.

use serde::Serialize;

/// How good it is. Ordered: what stands later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// This machine lacks something, or it could not be seen: good to know, no fault.
    Note,
    /// It works, and will bite some day.
    Warning,
    /// It should work and does not.
    Broken,
}

impl State {
    /// Its word, loud when it matters.
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
        /// Every check. The names are for scripts and for docs/DOCTOR.md: they stay.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        pub enum Check {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $name,)+
        }

        impl Check {
            /// All of them, in the order of the report.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// What it belongs to.
            #[must_use]
            pub const fn area(self) -> &'static str {
                match self { $(Self::$name => $area),+ }
            }
        }
    };
}

checks! {
    /// t3-trace answers.
    Daemon = "daemon" in "t3-trace",
    /// Whoever asks may.
    Permission = "permission" in "t3-trace",
    /// The daemon is of this release.
    Version = "version" in "t3-trace",
    /// t3-dispatch is connected to it.
    Dispatch = "dispatch" in "t3-trace",
    /// Nothing of the kernel's events was lost.
    Loss = "loss" in "t3-trace",
    /// The kernel's tables have room.
    Tables = "tables" in "t3-trace",
    /// The kernel tells where its structures keep things.
    Btf = "btf" in "kernel",
    /// A hook is attached.
    Hook = "hook" in "kernel",
    /// The kernel lets eBPF programs read it.
    Lockdown = "lockdown" in "kernel",
    /// Enough memory may be locked for the tables.
    Memlock = "memlock" in "kernel",
    /// The kernel measures pressure.
    Pressure = "pressure" in "machine",
    /// Cgroups version 2.
    Cgroups = "cgroups" in "machine",
    /// The wall clock is right.
    Clock = "clock" in "machine",
    /// The routing table can be read.
    Routes = "routes" in "serves",
    /// Something listens where a login is sent.
    Serve = "serve" in "serves",
    /// No soft memory limit.
    MemoryHigh = "memory-high" in "serves",
    /// A hard memory limit.
    MemoryMax = "memory-max" in "serves",
    /// An OOM kill of one process leaves the others alone.
    OomPolicy = "oom-policy" in "serves",
    /// The pressure of each serve is measured.
    ServePressure = "serve-pressure" in "serves",
    /// journald takes records.
    Journald = "journald" in "journal",
    /// The journal may be read.
    JournalAccess = "journal-access" in "journal",
    /// It outlives a restart.
    JournalStorage = "journal-storage" in "journal",
    /// journald does not drop records when many come at once.
    RateLimit = "rate-limit" in "journal",
    /// It has not dropped any.
    Suppressed = "suppressed" in "journal",
}

/// What one check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: Check,
    /// About what, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// How good.
    pub state: State,
    /// In a sentence.
    pub says: String,
    /// What to do.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn ok(check: Check, says: impl Into<String>) -> Self {
        Self { check, about: None, state: State::Ok, says: says.into(), advice: None }
    }

    /// Not all is well.
    #[must_use]
    pub fn of(check: Check, state: State, says: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = Some(advice.into()).filter(|advice| !advice.is_empty());
        Self { check, about: None, state, says: says.into(), advice }
    }

    /// Of several, this one.
    #[must_use]
    pub fn about(mut self, what: impl Into<String>) -> Self {
        self.about = Some(what.into());
        self
    }
}

/// The worst of all.
#[must_use]
pub fn worst(findings: &[Finding]) -> State {
    findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
}
