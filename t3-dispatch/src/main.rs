//! `t3-dispatch`: reads the configuration, sets up logging, and maps results to exit codes.

use std::{io::Write, process::ExitCode, time::Duration};

use anyhow::Context;
use t3_dispatch::{
    cli::{EXIT_CONFIG, Serve},
    config::{self, LoadedConfig, Mode, check},
    process::run::{self, ServeError},
    sys::allocator,
};

/// The allocator of musl has one lock for all threads, and maps and unmaps the buffers of each
/// connection (docs/PERFORMANCE.md).
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Timeout for writing the last log lines.
const LOG_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Some(code) = t3_config::pages::run(config::definition(), std::env::args_os()) {
        return code;
    }
    let config = config::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if config.mode == Mode::Check {
        return check(&config);
    }
    let warnings: Vec<_> =
        check::warnings(&config, variables()).into_iter().chain(check::hidden_units()).collect();
    let about = config.summary();
    match config.options {
        Ok(options) => {
            let code = run(*options, &about, &warnings);
            t3_journal::drain(LOG_DRAIN_TIMEOUT);
            code
        }
        Err(problems) => {
            for problem in problems {
                eprintln!("t3-dispatch: {problem}");
            }
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// Names only: values may be secrets.
fn variables() -> impl Iterator<Item = String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())
}

fn check(config: &LoadedConfig) -> ExitCode {
    let report = check::report(config, variables());
    // A write error cannot be reported anywhere.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(report.used.as_bytes());
    let _ = out.flush();
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    for problem in &report.problems {
        eprintln!("error: {problem}");
    }
    if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIG) }
}

fn run(options: Serve, about: &str, warnings: &[String]) -> ExitCode {
    match serve(options, about, warnings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let configuration =
                matches!(error.downcast_ref(), Some(ServeError::Table(_) | ServeError::Trust(_)))
                    || error.is::<t3_journal::logging::InitError>();
            tracing::error!("{error:#}");
            // Without a log subscriber only stderr is left.
            if !tracing::enabled!(tracing::Level::ERROR) {
                eprintln!("t3-dispatch: {error:#}");
            }
            if configuration { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn serve(options: Serve, about: &str, warnings: &[String]) -> anyhow::Result<()> {
    let sink = options.logging.log.resolve();
    t3_journal::init("t3-dispatch", sink, &options.logging.log_filter)?;
    tracing::info!("{about}");
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let bound = options.evidence.record_queue.get();
    let writer =
        t3_journal::Writer::start("t3-dispatch", sink, bound).context("cannot start the record writer")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("dispatch")
        .on_thread_park(allocator::worker_is_idle)
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(run::run(options, writer));
    // Closes connections that did not end in time.
    runtime.shutdown_background();
    Ok(result?)
}
