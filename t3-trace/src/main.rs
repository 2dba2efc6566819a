//! `t3-trace`: reads the command line and starts what was asked for.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::FromArgMatches;
use t3_journal::{Sink, Writer};
use t3_trace::cli::{self, Cli, Command};
use t3_trace_cli::{closes, doctor, explain, live};
use t3_trace_daemon::{args::DaemonArgs, run};
use t3_trace_host::kernel::{
    Functions, Kernel, Options, SWITCHED_OFF,
    view::{KernelView, Off},
};
use tokio::signal::unix::{SignalKind, signal};

/// How long the last log lines may take.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Some(code) = t3_config::pages::run(cli::definition(), std::env::args_os()) {
        return code;
    }
    let matches = cli::definition().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let mut healthy = true;
    let result = match cli.command {
        Command::Daemon(args) => run_daemon(args),
        Command::Live(args) => live::run(&args),
        Command::Closes(args) => closes::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Doctor(args) => doctor::run(&args).map(|works| healthy = works),
    };
    t3_journal::drain(LAST_LINES);
    match result {
        Ok(()) if healthy => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("t3-trace: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_daemon(args: DaemonArgs) -> anyhow::Result<()> {
    let sink = args.log.resolve();
    t3_journal::init("t3-trace", sink, &args.log_filter)?;
    let records = Writer::start("t3-dispatch", sink, t3_journal::DEFAULT_BOUND)
        .context("start the writer of records")?;
    let kernel = load(args.no_ebpf, args.hooks);
    let options = run::Options {
        socket: args.socket,
        dispatch_user: args.dispatch_user,
        group: args.group,
        to_journald: sink == Sink::Journald,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        run::run(options, kernel, records, stop).await
    })
}

/// The kernel side, or the reason why there is none: pressure is served all the same.
fn load(no_ebpf: bool, functions: Functions) -> Box<dyn KernelView> {
    if no_ebpf {
        return Box::new(Off { why: format!("{SWITCHED_OFF} --no-ebpf") });
    }
    match Kernel::load(&Options { functions, ..Options::default() }) {
        Ok(kernel) => Box::new(kernel),
        Err(error) => Box::new(Off { why: format!("{:#}", anyhow::Error::from(error)) }),
    }
}
