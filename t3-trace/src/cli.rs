//! Command line of `t3-trace`.

use std::ffi::OsString;

use clap::{Parser, Subcommand};
use t3_config::Rules;
use t3_trace_cli::{
    closes::args::ClosesArgs, doctor::args::DoctorArgs, explain::args::ExplainArgs, live::args::LiveArgs,
};
use t3_trace_daemon::args::DaemonArgs;

use crate::watch::WatchArgs;

/// Explain WebSocket disconnects: who closed, how, and under which host pressure.
#[derive(Debug, Parser)]
#[command(
    name = "t3-trace",
    version,
    max_term_width = 110,
    after_help = "Examples:
  t3-trace live                           # closes as they happen
  t3-trace closes --since '2 hours ago'   # past closes
  t3-trace watch --port 8080              # closed connections to any port
  t3-trace doctor                         # check this host

Exit status:
  0  success
  1  runtime failure; for doctor: a check failed
  2  usage or configuration error
  3  for closes and explain: a part of the journal could not be read

Files: /etc/t3-trace.toml has defaults of options for the daemon and all commands. Pages named
docs/NAME.md are in /usr/share/doc/t3-trace.

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
  2  usage or configuration error")]
    Daemon(DaemonArgs),
    /// Show closes as they happen and open sessions: full-screen on a terminal, else one line per
    /// close.
    Live(LiveArgs),
    /// List past WebSocket closes from the journal, with a summary.
    Closes(ClosesArgs),
    /// Explain one close on one page: conclusion, confidence, timeline and next steps.
    Explain(Box<ExplainArgs>),
    /// Show closed connections to a port as they happen, without configuration and without
    /// t3-dispatch (needs root).
    Watch(WatchArgs),
    /// Check kernel and host support; explain missing parts.
    Doctor(DoctorArgs),
}

/// A command of a user who may not read the file continues without it: it changes nothing, and the
/// file has no secrets that it could need. The daemon does not.
pub const RULES: Rules<'static> =
    Rules { collect_errors: &[], foreign: &[], without_file: &["live", "closes", "explain", "doctor"] };

/// Returns the complete definition, with the subcommands shared by all programs.
#[must_use]
pub fn definition() -> clap::Command {
    t3_config::definition::<Cli>()
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
    use t3_trace_daemon::args::{OF_COMMANDS, Program};

    use super::*;

    #[test]
    fn the_daemon_knows_the_options_of_the_commands_in_the_file() {
        let all = definition();
        let daemon = t3_config::definition::<Program>();
        let own = t3_config::file_options(&daemon);
        let others = t3_config::file_options(&all);
        let others: Vec<_> = others.into_iter().filter(|name| !own.contains(name)).collect();
        let mut known = OF_COMMANDS.to_vec();
        known.sort_unstable();
        let mut sorted = others.clone();
        sorted.sort_unstable();
        assert_eq!(known, sorted);
        // Both programs have the same options of the daemon.
        assert_eq!(t3_config::file_options(all.find_subcommand("daemon").unwrap()), own);
    }

    #[test]
    fn every_option_of_the_file_has_a_variable_of_its_name() {
        let all = definition();
        for command in all.get_subcommands().filter(|command| !t3_config::pages::is_ours(command.get_name()))
        {
            for arg in t3_config::options_of(command) {
                let (name, variable) = (arg.get_long().unwrap(), arg.get_env().unwrap().to_str().unwrap());
                let suffix = name.replace('-', "_").to_uppercase();
                // Those of the other layers are older than the rule.
                let expected =
                    [format!("T3_TRACE_{suffix}"), format!("T3_{suffix}"), format!("T3_{suffix}_URL")];
                assert!(expected.iter().any(|expected| expected == variable), "{name}: {variable}");
            }
        }
    }

    #[test]
    fn an_option_of_one_run_cannot_be_in_the_file() {
        let all = definition();
        let options = t3_config::file_options(&all);
        for name in
            ["user", "since", "until", "short", "json", "csv", "conn", "at", "last", "reconcile", "file"]
        {
            assert!(!options.contains(&name), "{name}");
        }
    }

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
