//! `t3-trace-daemon`: the program of t3-trace.service.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use t3_trace_daemon::args::Program;

/// How long the last log lines may take.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let result = t3_trace_daemon::start(Program::parse().daemon);
    t3_journal::drain(LAST_LINES);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("t3-trace-daemon: {error:#}");
            ExitCode::FAILURE
        }
    }
}
