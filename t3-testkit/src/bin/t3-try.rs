//! `t3-try`: t3-dispatch and t3-trace in front of any WebSocket backend, run by `cargo xtask try`.

use std::process::ExitCode;

use clap::Parser;
use t3_testkit::trial::{self, backend::Backend};

/// Exit status when it could not run.
const FAILED: u8 = 2;

/// Puts t3-dispatch and t3-trace in front of a WebSocket backend and shows how each WebSocket ends
#[derive(Debug, Parser)]
#[command(
    name = "t3-try",
    after_help = "Exit status: 0 stopped by Ctrl-C; 2 it could not run, or usage error."
)]
struct Arguments {
    /// Address of the backend on this host, such as `http://127.0.0.1:8080`.
    #[arg(value_name = "URL")]
    backend: Backend,
    /// Port of the address to open; 0 selects a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match trial::run(&arguments.backend, arguments.port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("t3-try: {error}");
            ExitCode::from(FAILED)
        }
    }
}
