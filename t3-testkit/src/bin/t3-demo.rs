//! `t3-demo`: the demo as a program, run by `cargo xtask demo`.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use t3_testkit::demo::{self, Ended, Options};

/// Exit status when the demo could not run.
const FAILED: u8 = 2;
/// Exit status after Ctrl-C: 128 and SIGINT, as in a shell.
const STOPPED: u8 = 130;

/// Ends WebSocket sessions in eight ways and shows how t3-trace explains each
#[derive(Debug, Parser)]
#[command(
    name = "t3-demo",
    after_help = "Exit status: 0 every fault was explained correctly; 1 one was not; 2 the demo could not run, or usage error; \
                  130 stopped by Ctrl-C."
)]
struct Arguments {
    /// Keep everything running afterwards, for your own browser, until Ctrl-C.
    #[arg(long)]
    hold: bool,
    /// Pause before each fault in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1500)]
    pause: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match demo::run(Options { hold: arguments.hold, pause: Duration::from_millis(arguments.pause) }) {
        Ok(report) if report.all_correct() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(Ended::Stopped) => ExitCode::from(STOPPED),
        Err(Ended::Failed(error)) => {
            eprintln!("t3-demo: {error}");
            ExitCode::from(FAILED)
        }
    }
}
