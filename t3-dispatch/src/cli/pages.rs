//! Options: pages of dispatch's own, and what is put into others on their way to the browser.

use std::{num::NonZeroU16, time::Duration};

use clap::Args;

use super::value::time;

/// Pages of dispatch's own, and what is put into others on their way to the browser.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pages")]
pub struct Pages {
    /// Put no tags of a standalone app into pages, and serve no manifest for them.
    #[arg(long, env = "T3_DISPATCH_NO_INSTALL_TAGS")]
    pub no_install_tags: bool,
    /// Silence after which a WebSocket of /probe/ws is closed.
    #[arg(long, env = "T3_DISPATCH_PROBE_SILENCE", value_name = "TIME", value_parser = time, default_value = "90s")]
    pub probe_silence: Duration,
    /// WebSockets of /probe/ws at once; more get 503.
    #[arg(long, env = "T3_DISPATCH_MAX_PROBES", value_name = "N", default_value = "64")]
    pub max_probes: NonZeroU16,
}
