//! `t3-trace`: parses the command line and runs the command.

use std::{process::ExitCode, time::Duration};

use clap::FromArgMatches;
use t3_trace::cli::{self, Cli, Command};
use t3_trace_cli::{closes, doctor, explain, journal::Completeness, live, present::text::safe};

/// Exit status of a command that could read only a part of the journal.
const INCOMPLETE: u8 = 3;
/// Timeout for writing the last log lines.
const LOG_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let words = cli::words(std::env::args_os());
    if let Some(code) = t3_config::pages::run(cli::definition(), words.clone()) {
        return code;
    }
    let matches = cli::definition().get_matches_from(words);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let mut code = ExitCode::SUCCESS;
    let mut complete = |read| {
        if read == Completeness::Incomplete {
            code = ExitCode::from(INCOMPLETE);
        }
    };
    let result = match cli.command {
        Command::Daemon(args) => t3_trace_daemon::start(args),
        Command::Live(args) => live::run(&args),
        Command::Closes(args) => closes::run(&args).map(&mut complete),
        Command::Explain(args) => explain::run(&args).map(&mut complete),
        Command::Doctor(args) => doctor::run(&args).map(|works| {
            if !works {
                code = ExitCode::FAILURE;
            }
        }),
    };
    t3_journal::drain(LOG_DRAIN_TIMEOUT);
    match result {
        Ok(()) => code,
        Err(error) => {
            // Errors quote outside text.
            let text: Vec<_> = format!("{error:#}").lines().map(safe).collect();
            eprintln!("t3-trace: {}", text.join("\n"));
            ExitCode::FAILURE
        }
    }
}
