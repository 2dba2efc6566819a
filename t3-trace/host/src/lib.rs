//! What the daemon and the command-line tools share: the kernel side, procfs, cgroups, clocks,
//! accounts and the trust in journal entries.
//!
//! Only [`kernel`] needs privileges.

pub mod accounts;
pub mod cgroup;
pub mod clock;
pub mod journal_trust;
pub mod kernel;
pub mod proc;
