//! Options: HTTP connections to clients and to serve, except WebSockets.

use std::time::Duration;

use clap::Args;

use super::value::{time, time_or_none};

/// HTTP connections to clients and to serve.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpOptions {
    /// Timeout for the start of the next request on an open client connection.
    #[arg(long, env = "T3_DISPATCH_IDLE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "120s")]
    pub idle_timeout: Duration,
    /// Timeout for the rest of a request head once it has begun (408).
    #[arg(long, env = "T3_DISPATCH_HEADER_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "10s")]
    pub header_timeout: Duration,
    /// Timeout for the next bytes of a request body (408).
    #[arg(long, env = "T3_DISPATCH_BODY_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "60s")]
    pub body_timeout: Duration,
    /// Timeout for the start of serve's response after the complete request was sent (504).
    #[arg(long, env = "T3_DISPATCH_RESPONSE_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "120s")]
    pub response_timeout: Duration,
    /// Maximum size of a request head: request line and header fields (431).
    #[arg(long, env = "T3_DISPATCH_MAX_HEADER_BYTES", value_name = "BYTES",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1024..=1_048_576), default_value = "65536")]
    pub max_header_bytes: usize,
    /// Maximum number of header fields of a request (431).
    #[arg(long, env = "T3_DISPATCH_MAX_HEADERS", value_name = "COUNT",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(16..=1000), default_value = "100")]
    pub max_headers: usize,
    /// Maximum number of idle connections to each serve; 0 for none.
    #[arg(long, env = "T3_DISPATCH_POOL_SIZE", value_name = "COUNT", default_value = "8")]
    pub pool_size: usize,
    /// Timeout for idle connections to serve. Must be below serve's own keep-alive timeout (5 s in
    /// Node).
    #[arg(long, env = "T3_DISPATCH_POOL_IDLE_TIME", value_name = "TIME", value_parser = time_or_none, default_value = "4s")]
    pub pool_idle_time: Duration,
}
