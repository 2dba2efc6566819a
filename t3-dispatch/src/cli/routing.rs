//! Options: routing of a request.

use std::path::PathBuf;

use clap::Args;

/// Routing of a request.
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
}
