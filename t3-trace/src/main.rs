//! `t3-trace`: parses the command line and runs the command.

use std::{process::ExitCode, time::Duration};

use clap::FromArgMatches;
use t3_trace::cli::{self, Cli, Command};
use t3_trace_cli::{closes, doctor, explain, live};

/// Timeout for writing the last log lines.
const LOG_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Some(code) = t3_config::pages::run(cli::definition(), std::env::args_os()) {
        return code;
    }
    let matches = cli::definition().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let mut healthy = true;
    let result = match cli.command {
        Command::Daemon(args) => t3_trace_daemon::start(args),
        Command::Live(args) => live::run(&args),
        Command::Closes(args) => closes::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Doctor(args) => doctor::run(&args).map(|works| healthy = works),
    };
    t3_journal::drain(LOG_DRAIN_TIMEOUT);
    match result {
        Ok(()) if healthy => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("t3-trace: {error:#}");
            ExitCode::FAILURE
        }
    }
}
