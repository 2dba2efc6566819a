//! Options: pages that dispatch serves, and tags that it injects into pages of serve.

use std::{num::NonZeroU16, time::Duration};

use clap::Args;

use super::value::{FileOption, time};

/// Pages that dispatch serves, and tags that it injects into pages of serve.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pages")]
pub struct PageOptions {
    /// Do not inject PWA manifest and meta tags.
    #[arg(long, env = "T3_DISPATCH_NO_INSTALL_TAGS")]
    pub no_install_tags: bool,
    /// Timeout for idle WebSockets of /probe/ws.
    #[arg(long, env = "T3_DISPATCH_PROBE_SILENCE", value_name = "TIME", value_parser = time, default_value = "90s")]
    pub probe_silence: Duration,
    /// Maximum number of open WebSockets of /probe/ws; more get 503.
    #[arg(long, env = "T3_DISPATCH_MAX_PROBES", value_name = "N", default_value = "64")]
    pub max_probes: NonZeroU16,
    /// Maximum number of open WebSockets of /probe/ws of one client address (IPv6: /64) or local
    /// user; more get 429.
    #[arg(long, env = "T3_DISPATCH_MAX_PROBES_PER_ADDRESS", value_name = "N", default_value = "8")]
    pub max_probes_per_address: NonZeroU16,
    /// File with the token that /probe/ws requires (401 without it), the same as `--token-file` of
    /// t3-probe; off for none.
    #[arg(long, env = "T3_DISPATCH_PROBE_TOKEN_FILE", value_name = "FILE", default_value = "off")]
    pub probe_token_file: FileOption,
}
