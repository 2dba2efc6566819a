//! `t3-dispatch`: reads the command line, sets logging up, and turns outcomes into exit codes.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use t3_dispatch::{
    cli::{Cli, Command, EXIT_CONFIG, Serve},
    serve::{self, ServeError},
};

/// How long the last log lines may take.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let Command::Serve(options) = Cli::parse().command;
    let code = run(*options);
    t3_journal::drain(LAST_LINES);
    code
}

fn run(options: Serve) -> ExitCode {
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let configuration = matches!(error.downcast_ref(), Some(ServeError::Table(_)))
                || error.is::<t3_journal::logging::InitError>();
            tracing::error!("{error:#}");
            // A subscriber that was never set up leaves stderr.
            if !tracing::enabled!(tracing::Level::ERROR) {
                eprintln!("t3-dispatch: {error:#}");
            }
            if configuration { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn serve(options: Serve) -> anyhow::Result<()> {
    let sink = options.log.resolve();
    t3_journal::init("t3-dispatch", sink, &options.log_filter)?;
    let writer = t3_journal::Writer::start("t3-dispatch", sink).context("start the writer of records")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("dispatch")
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(serve::run(options, writer));
    // Connections that did not end in time are cut here.
    runtime.shutdown_background();
    Ok(result?)
}
