//! Options: how many and how fast: sessions, upgrades, origins.

use std::num::{NonZeroU32, NonZeroUsize};

use clap::Args;

use crate::admission::origin::Allowed;

/// How many and how fast: sessions, upgrades, origins.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// WebSockets at once, in all; more get 503. Each takes two descriptors.
    #[arg(long, env = "T3_DISPATCH_MAX_SESSIONS", value_name = "N", default_value = "8192")]
    pub max_sessions: NonZeroUsize,
    /// WebSockets of one user at once; more get 429. Those of a lost network count until their
    /// timeout.
    #[arg(long, env = "T3_DISPATCH_MAX_SESSIONS_PER_USER", value_name = "N", default_value = "256")]
    pub max_sessions_per_user: NonZeroUsize,
    /// WebSockets that one user may open in a second, in the long run; faster gets 429. 0 for no
    /// limit.
    #[arg(long, env = "T3_DISPATCH_UPGRADE_RATE", value_name = "N", default_value = "10")]
    pub upgrade_rate: u32,
    /// WebSockets that one user may open at once, before the rate counts.
    #[arg(long, env = "T3_DISPATCH_UPGRADE_BURST", value_name = "N", default_value = "200")]
    pub upgrade_burst: NonZeroU32,
    /// Origin whose pages may open WebSockets besides those of the host itself; * for all.
    /// Repeatable, or separated by commas in the environment.
    #[arg(long, env = "T3_DISPATCH_ALLOWED_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub allowed_origin: Vec<Allowed>,
}
