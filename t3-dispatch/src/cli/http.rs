//! Options: HTTP connections of both sides, apart from WebSockets.

use std::time::Duration;

use clap::Args;

use super::value::{time, time_or_none};

/// HTTP connections of both sides.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct Http {
    /// For a client to begin its next request on an open connection.
    #[arg(long, env = "T3_DISPATCH_IDLE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "120s")]
    pub idle_timeout: Duration,
    /// For a client to finish the head of a request that it has begun (408).
    #[arg(long, env = "T3_DISPATCH_HEADER_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "10s")]
    pub header_timeout: Duration,
    /// For the next bytes of a request's body (408).
    #[arg(long, env = "T3_DISPATCH_BODY_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "60s")]
    pub body_timeout: Duration,
    /// For serve to begin its answer once it has the whole request (504).
    #[arg(long, env = "T3_DISPATCH_RESPONSE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "120s")]
    pub response_timeout: Duration,
    /// Bytes of a request's head: request line and header fields (431).
    #[arg(long, env = "T3_DISPATCH_MAX_HEADER_BYTES", value_name = "BYTES",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1024..=1_048_576), default_value = "65536")]
    pub max_header_bytes: usize,
    /// Header fields of a request (431).
    #[arg(long, env = "T3_DISPATCH_MAX_HEADERS", value_name = "COUNT",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(16..=1000), default_value = "100")]
    pub max_headers: usize,
    /// Idle connections that are kept to each serve; 0 for none.
    #[arg(long, env = "T3_DISPATCH_POOL_SIZE", value_name = "COUNT", default_value = "8")]
    pub pool_size: usize,
    /// How long a connection to serve is kept idle. Must be below the time after which serve closes
    /// it (5 s in Node).
    #[arg(long, env = "T3_DISPATCH_POOL_IDLE_TIME", value_name = "TIME", value_parser = time_or_none, default_value = "4s")]
    pub pool_idle_time: Duration,
}
