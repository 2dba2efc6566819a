//! Command line of `t3-trace`.

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};
use t3_trace_cli::{
    closes::args::ClosesArgs, doctor::args::DoctorArgs, explain::args::ExplainArgs, live::args::LiveArgs,
};
use t3_trace_daemon::args::DaemonArgs;

/// Explain WebSocket disconnects: who closed, how, and under which host pressure.
#[derive(Debug, Parser)]
#[command(
    name = "t3-trace",
    version,
    max_term_width = 110,
    after_help = "Examples:
  t3-trace live                           # closes as they happen
  t3-trace closes --since '2 hours ago'   # past closes
  t3-trace doctor                         # check this host

Exit status:
  0  success
  1  runtime failure; for doctor: a check failed
  2  usage error
  3  for closes and explain: a part of the journal could not be read

Each command has its own examples: t3-trace closes --help"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the kernel and serve evidence to t3-dispatch (needs root).
    #[command(after_help = "Examples:
  t3-trace daemon --log stderr
  t3-trace daemon --hooks tracepoint --dispatch-user nobody

Exit status:
  0  clean shutdown
  1  runtime failure, for example another daemon on the socket
  2  usage error")]
    Daemon(DaemonArgs),
    /// Show closes as they happen and open sessions: full-screen on a terminal, else one line per
    /// close.
    Live(LiveArgs),
    /// List past WebSocket closes from the journal, with a summary.
    Closes(ClosesArgs),
    /// Explain one close on one page: conclusion, confidence, timeline and next steps.
    Explain(Box<ExplainArgs>),
    /// Check kernel and host support; explain missing parts.
    Doctor(DoctorArgs),
}

/// Returns the complete definition, with the subcommands shared by all programs.
#[must_use]
pub fn definition() -> clap::Command {
    t3_config::pages::with(Cli::command())
}

/// The words of a command line, with `--boot -1` as `--boot=-1`: journalctl accepts both, clap only
/// the second for a value that may be left out.
#[must_use]
pub fn words(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let is_number = |word: &OsString| {
        let digits = word.to_str().and_then(|word| word.strip_prefix('-'));
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut words: Vec<OsString> = Vec::new();
    for word in given {
        match words.last_mut().filter(|last| *last == "--boot" && is_number(&word)) {
            Some(last) => {
                last.push("=");
                last.push(word);
            }
            None => words.push(word),
        }
    }
    words
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn the_number_of_an_earlier_boot_may_be_a_word_of_its_own() {
        for (given, meant) in [
            ("t3-trace closes --boot -1 --json", "t3-trace closes --boot=-1 --json"),
            ("t3-trace closes --boot=-1 --json", "t3-trace closes --boot=-1 --json"),
            ("t3-trace closes --boot --json", "t3-trace closes --boot --json"),
            ("t3-trace closes --since -2h", "t3-trace closes --since -2h"),
            ("t3-trace closes --boot -", "t3-trace closes --boot -"),
        ] {
            let given = words(given.split(' ').map(OsString::from));
            assert_eq!(given, meant.split(' ').map(OsString::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn help_pages_and_completions_are_complete_and_their_examples_valid() {
        assert_eq!(t3_config::pages::audit::problems(&definition()), Vec::<String>::new());
    }

    #[test]
    fn an_invalid_duration_is_a_usage_error_with_an_example() {
        let error = definition().try_get_matches_from(["t3-trace", "live", "--short", "soon"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("expected a duration such as"), "{error}");
    }
}
