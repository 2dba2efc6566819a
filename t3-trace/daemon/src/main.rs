//! `t3-trace-daemon`: the program of t3-trace.service.

use std::{process::ExitCode, time::Duration};

use t3_config::Sources;
use t3_trace_daemon::{
    args::{Program, RULES},
    exit,
};

/// Timeout for writing the last log lines.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let sources =
        Sources::read::<Program, _>(std::env::args_os(), RULES).unwrap_or_else(|error| error.exit());
    let loaded = sources.parse::<Program>().unwrap_or_else(|error| error.exit());
    let result = match loaded.options {
        Ok(program) => t3_trace_daemon::start(program.daemon),
        Err(errors) => {
            for error in &errors {
                eprintln!("t3-trace-daemon: {error}");
            }
            return ExitCode::from(exit::of_configuration(&errors));
        }
    };
    t3_journal::drain(DRAIN_TIMEOUT);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("t3-trace-daemon: {error:#}");
            ExitCode::from(exit::of(&error))
        }
    }
}
