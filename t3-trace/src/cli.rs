//! The command line.

use clap::{CommandFactory, Parser, Subcommand};
use t3_trace_cli::{
    closes::args::ClosesArgs, doctor::args::DoctorArgs, explain::args::ExplainArgs, live::args::LiveArgs,
};
use t3_trace_daemon::args::DaemonArgs;

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
    #[command(after_help = "Examples:
  t3-trace daemon --log stderr
  t3-trace daemon --hooks tracepoint --dispatch-user nobody

Exit status:
  0  stopped as told
  1  a failure: another daemon on the socket, for example
  2  wrong usage")]
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
