//! Options: limits on connections, requests, sessions, upgrades and origins.

use std::num::{NonZeroU32, NonZeroUsize};

use clap::Args;

use crate::admission::origin::AllowedOrigin;

/// Limits on connections, requests, sessions, upgrades and origins.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitOptions {
    /// Maximum number of open HTTP connections, WebSockets not included; more get 503. Peers that
    /// are not trusted may have a quarter of them.
    #[arg(long, env = "T3_DISPATCH_MAX_CONNECTIONS", value_name = "N", default_value = "2048")]
    pub max_connections: NonZeroUsize,
    /// Maximum number of open HTTP connections of one address or local user that is not trusted;
    /// more get 429.
    #[arg(long, env = "T3_DISPATCH_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N", default_value = "64")]
    pub max_connections_per_address: NonZeroUsize,
    /// Maximum number of open HTTP connections of one network that is not trusted (/24, IPv6 /64),
    /// and of all local users that are not; more get 429.
    #[arg(long, env = "T3_DISPATCH_MAX_CONNECTIONS_PER_NETWORK", value_name = "N", default_value = "256")]
    pub max_connections_per_network: NonZeroUsize,
    /// Maximum number of requests of one user in flight, WebSockets not included; more get 429.
    #[arg(long, env = "T3_DISPATCH_MAX_REQUESTS_PER_USER", value_name = "N", default_value = "256")]
    pub max_requests_per_user: NonZeroUsize,
    /// Maximum number of open WebSockets; more get 503. Each uses two file descriptors.
    #[arg(long, env = "T3_DISPATCH_MAX_SESSIONS", value_name = "N", default_value = "4096")]
    pub max_sessions: NonZeroUsize,
    /// Maximum number of open WebSockets of one user; more get 429. Those of a lost network count
    /// until they time out.
    #[arg(long, env = "T3_DISPATCH_MAX_SESSIONS_PER_USER", value_name = "N", default_value = "256")]
    pub max_sessions_per_user: NonZeroUsize,
    /// Sustained rate of upgrades of one user, per second; faster gets 429. 0 for no limit.
    #[arg(long, env = "T3_DISPATCH_UPGRADE_RATE", value_name = "N", default_value = "10")]
    pub upgrade_rate: u32,
    /// Upgrades that one user may send in a burst before the rate applies.
    #[arg(long, env = "T3_DISPATCH_UPGRADE_BURST", value_name = "N", default_value = "200")]
    pub upgrade_burst: NonZeroU32,
    /// Origin whose pages may open WebSockets, in addition to the host itself; * for all.
    /// Repeatable, or separated by commas in the environment.
    #[arg(long, env = "T3_DISPATCH_ALLOWED_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub allowed_origin: Vec<AllowedOrigin>,
}
