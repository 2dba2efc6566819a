//! Options: metrics endpoint.

use clap::Args;

use crate::metrics::server::ListenOption;

/// Metrics endpoint.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Metrics")]
pub struct MetricsOptions {
    /// Address of the metrics endpoint (/metrics); off for none.
    #[arg(
        long,
        env = "T3_DISPATCH_METRICS_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:9780"
    )]
    pub metrics_listen: ListenOption,
}
