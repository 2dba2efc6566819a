//! Options: identity and routing of a request.

use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;

use super::value::network;

/// Identity and routing of a request.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Routing")]
pub struct RoutingOptions {
    /// Routing table: {"LOGIN": {"os_user": "USER", "port": PORT}}.
    #[arg(
        long,
        env = "T3_DISPATCH_TABLE",
        value_name = "FILE",
        default_value = "/etc/t3-serve/dispatch.json"
    )]
    pub table: PathBuf,
    /// Network whose identity and forwarding headers are trusted. Repeatable, or separated by
    /// commas in the environment.
    #[arg(
        long,
        env = "T3_DISPATCH_TRUSTED_PROXY",
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = network,
        default_value = "127.0.0.0/8,::1/128"
    )]
    pub trusted_proxy: Vec<IpNet>,
}
