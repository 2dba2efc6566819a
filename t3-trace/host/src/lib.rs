//! Shared parts of the daemon and the commands: kernel side, procfs, cgroups, clocks, accounts and
//! trust in journal entries.
//!
//! Only [`kernel`] needs privileges.

pub mod accounts;
pub mod cgroup;
pub mod clock;
pub mod journal_trust;
pub mod kernel;
pub mod proc;
pub mod rtnetlink;
pub mod small_file;
pub mod sock_diag;
pub mod swap;

/// Default configuration file of the daemon and the commands.
pub const CONFIG: &str = "/etc/t3-trace.toml";
