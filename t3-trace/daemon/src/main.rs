//! `t3-trace-daemon`: the program of t3-trace.service.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use t3_trace_daemon::args::Program;

/// Timeout for writing the last log lines.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let result = t3_trace_daemon::start(Program::parse().daemon);
    t3_journal::drain(DRAIN_TIMEOUT);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("t3-trace-daemon: {error:#}");
            ExitCode::FAILURE
        }
    }
}
