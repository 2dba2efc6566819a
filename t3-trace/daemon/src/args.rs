//! Options of the daemon.

use std::path::PathBuf;

use clap::{Args, Parser};
use t3_config::Rules;
use t3_journal::LogTarget;
use t3_record::wire::SOCKET_PATH;
use t3_trace_host::{CONFIG, journal_trust::DISPATCH_USER, kernel::Functions};

use crate::direct::Watch;

/// Options of the commands, which read the same file. The daemon skips them.
pub const OF_COMMANDS: [&str; 32] = [
    "color",
    "time-zone",
    "loki",
    "loki-tenant",
    "loki-token-file",
    "loki-user",
    "loki-password-file",
    "loki-header-file",
    "traefik-selector",
    "cloudflared-selector",
    "loki-selector",
    "journal-selector",
    "loki-timeout",
    "loki-limit",
    "prometheus",
    "prometheus-tenant",
    "prometheus-token-file",
    "prometheus-user",
    "prometheus-password-file",
    "prometheus-header-file",
    "prometheus-host",
    "traefik-log",
    "cloudflared-log",
    "logpush",
    "logpush-selector",
    "envoy-log",
    "envoy-selector",
    "haproxy-log",
    "haproxy-selector",
    "layer-ca",
    "layer-timeout",
    "table",
];

/// The daemon does not start with a file that it cannot read.
pub const RULES: Rules<'static> = Rules { collect_errors: &[], foreign: &OF_COMMANDS, without_file: &[] };

/// Command line of `t3-trace-daemon`.
#[derive(Debug, Parser)]
#[command(
    name = "t3-trace-daemon",
    version,
    about = "Watch the kernel and serve evidence to t3-dispatch (needs root)",
    max_term_width = 110,
    after_help = "The same as `t3-trace daemon`, without the other commands; t3-trace.service starts it.

Exit status:
  0  clean shutdown
  1  runtime failure, for example another daemon on the socket
  2  usage or configuration error; t3-trace.service does not restart it"
)]
pub struct Program {
    #[command(flatten)]
    pub daemon: DaemonArgs,
}

/// Options of the daemon.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Configuration file of t3-trace, `name = value` in TOML; the command line and the environment
    /// take precedence. The default file is optional.
    #[arg(long, env = "T3_TRACE_CONFIG", value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,
    /// Path of the evidence socket
    #[arg(long, env = "T3_TRACE_SOCKET", value_name = "PATH", default_value = SOCKET_PATH)]
    pub socket: PathBuf,
    /// User of t3-dispatch: only this user and root may register sessions
    #[arg(long, env = "T3_TRACE_DISPATCH_USER", default_value = DISPATCH_USER, value_name = "USER")]
    pub dispatch_user: String,
    /// Group that may subscribe to records
    #[arg(long, env = "T3_TRACE_GROUP", default_value = "t3-trace", value_name = "GROUP")]
    pub group: String,
    /// Directory of the spool: what still has to arrive in the journal
    #[arg(long, env = "T3_TRACE_STATE_DIR", default_value = "/var/lib/t3-trace", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Size of the spool in bytes, allocated at the start
    #[arg(long, env = "T3_TRACE_SPOOL_SIZE", default_value = "33554432", value_name = "BYTES")]
    pub spool_size: u64,
    /// Log target: auto, journald or stderr
    #[arg(long, env = "T3_TRACE_LOG", default_value = "auto", value_name = "WHERE")]
    pub log: LogTarget,
    /// Log filter in the syntax of tracing's EnvFilter
    #[arg(long, env = "T3_TRACE_LOG_FILTER", default_value = "info", value_name = "FILTER")]
    pub log_filter: String,
    /// How to hook kernel functions, in addition to the tracepoints
    #[arg(long, value_enum, default_value = "best", env = "T3_TRACE_HOOKS", value_name = "WAY")]
    pub hooks: Functions,
    /// Connections that get a `tcp close` record when they close, unless t3-dispatch carried them:
    /// those to `port=N`, and optionally `process=COMM` and `unit=NAME` of the process behind it
    /// and `proxy=true` if it is a proxy, whose sessions get one record for both connections,
    /// or with `outgoing=true` those that `unit=NAME` opens, optionally to `port=N` only;
    /// `min-duration=TIME` of a recorded connection (default 30s), `budget=N`, records per minute
    /// (default 1000), and `websocket=true` to read Close frames of plain-text WebSockets to the
    /// port. In the file `[[watch]]` with these keys (repeatable)
    #[arg(long, env = "T3_TRACE_WATCH", value_name = "KEY=VALUE,...", value_parser = Watch::parse)]
    pub watch: Vec<Watch>,
    /// Do not record connections to the serve ports of the routing table that t3-dispatch did not
    /// carry
    #[arg(long, env = "T3_TRACE_NO_WATCH_SERVE")]
    pub no_watch_serve: bool,
    /// File for metrics in the text format of Prometheus, written every 15 s, for the textfile
    /// collector of the node exporter (docs/METRICS.md)
    #[arg(long, env = "T3_TRACE_METRICS_FILE", value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// Do not load eBPF programs: provide pressure only
    #[arg(long, env = "T3_TRACE_NO_EBPF")]
    pub no_ebpf: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Program::command().debug_assert();
    }
}
