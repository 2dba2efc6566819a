//! `t3-demo`: the demo as a program, run by `cargo xtask demo`.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use t3_testkit::{
    demo::{self, Ended, Options},
    foreign::Proxy,
};

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
    /// Without t3-dispatch: sessions through this proxy, or `direct` to serve.
    #[arg(long, value_name = "NAME", conflicts_with = "hold",
          value_parser = ["direct", "nginx", "haproxy", "traefik", "caddy", "envoy"])]
    proxy: Option<String>,
    /// Pause before each fault in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1500)]
    pause: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let pause = Duration::from_millis(arguments.pause);
    let outcome = match arguments.proxy {
        Some(name) => demo::foreign::run(Proxy::ALL.into_iter().find(|proxy| proxy.name() == name), pause),
        None => demo::run(Options { hold: arguments.hold, pause }).map(|report| report.all_correct()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Ended::Stopped) => ExitCode::from(STOPPED),
        Err(Ended::Failed(error)) => {
            eprintln!("t3-demo: {error}");
            ExitCode::from(FAILED)
        }
    }
}
