//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand};
use t3_journal::LogTarget;
use t3_record::wire::SOCKET_PATH;

use crate::{
    closes::args::ClosesArgs, doctor::args::DoctorArgs, explain::args::ExplainArgs,
    journal_trust::DISPATCH_USER, kernel::Functions, when::duration,
};

/// Who ended a WebSocket, how, and was the machine starving at that moment.
#[derive(Debug, Parser)]
#[command(
    name = "t3-trace",
    version,
    max_term_width = 110,
    after_help = "Examples:
  t3-trace live                           # closes as they happen
  t3-trace closes --since '2 hours ago'   # what has happened
  t3-trace doctor                         # does everything work here?

Exit status:
  0  all is well
  1  something failed; for doctor: something that should work does not
  2  wrong usage

Each command has examples of its own: t3-trace closes --help"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the kernel and serve evidence to t3-dispatch (needs root).
    Daemon(DaemonArgs),
    /// Show closes as they happen and the sessions that are open: on the whole screen of a
    /// terminal, else one line per close.
    Live(LiveArgs),
    /// Show closes that were, from the journal, and a summary of them.
    Closes(ClosesArgs),
    /// Explain one close on one page: what happened, how sure that is, and what to do.
    Explain(Box<ExplainArgs>),
    /// Check what this kernel and this machine allow, and what keeps the rest from working.
    Doctor(DoctorArgs),
}

/// `t3-trace daemon`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  t3-trace daemon --log stderr
  t3-trace daemon --hooks tracepoint --dispatch-user nobody

Exit status:
  0  stopped as told
  1  a failure: another daemon on the socket, for example
  2  wrong usage")]
pub struct DaemonArgs {
    /// Where to serve evidence.
    #[arg(long, default_value = SOCKET_PATH)]
    pub socket: PathBuf,
    /// The user t3-dispatch runs as: only it (and root) may register sessions.
    #[arg(long, default_value = DISPATCH_USER, value_name = "USER")]
    pub dispatch_user: String,
    /// The group that may watch.
    #[arg(long, default_value = "t3-trace", value_name = "GROUP")]
    pub group: String,
    /// Where to log: auto, journald or stderr.
    #[arg(long, default_value = "auto", value_name = "WHERE")]
    pub log: LogTarget,
    /// What to log, in the syntax of tracing's EnvFilter.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub log_filter: String,
    /// How to hook kernel functions, beside the tracepoints.
    #[arg(long, value_enum, default_value = "best", env = "T3_TRACE_HOOKS", value_name = "WAY")]
    pub hooks: Functions,
    /// Do not load eBPF programs: only pressure.
    #[arg(long)]
    pub no_ebpf: bool,
}

/// `t3-trace live`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  t3-trace live
  t3-trace live --user alice --short 2m
  t3-trace live --plain
  t3-trace live --json | jq .verdict

On the screen ? shows the keys, Enter the evidence of a close; docs/LIVE.md says more.

Exit status:
  0  stopped as told, or nobody reads any more
  1  something failed
  2  wrong usage

Environment: NO_COLOR for no colours; there are none anyway where the output is no terminal.")]
pub struct LiveArgs {
    /// The daemon's socket.
    #[arg(long, default_value = SOCKET_PATH)]
    pub socket: PathBuf,
    /// Each record as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Only this user; on the screen the filter to begin with.
    #[arg(long)]
    pub user: Option<String>,
    /// Only sessions shorter than this, for example 120s, 2m or 500ms; on the screen the filter to
    /// begin with.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub short: Option<Duration>,
    /// One line per close, also where there is a terminal for the whole screen.
    #[arg(long)]
    pub plain: bool,
}

/// The whole definition, with the subcommands that every program of this house has.
#[must_use]
pub fn definition() -> clap::Command {
    t3_config::pages::with(Cli::command())
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn help_pages_and_completions_are_whole_and_their_examples_are_right() {
        assert_eq!(t3_config::pages::audit::problems(&definition()), Vec::<String>::new());
    }

    #[test]
    fn an_invalid_duration_is_a_usage_error_with_an_example() {
        let error = definition().try_get_matches_from(["t3-trace", "live", "--short", "soon"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("expected a duration such as"), "{error}");
    }
}
