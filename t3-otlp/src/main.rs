//! `t3-otlp`: reads the command line, then exports until a signal or the end of the source.

use std::process::ExitCode;

use anyhow::Context as _;
use t3_http_client::HttpClient;
use t3_otlp::{
    cli::{Cli, Command, Run, Signal, headers},
    cursor,
    export::Collector,
    run::{self, Counts, Plan},
    source,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing_subscriber::EnvFilter;

/// Exit status of a usage or configuration error.
const USAGE: u8 = 2;
/// Records between the source and the export, in batches.
const QUEUED_BATCHES: usize = 2;

fn main() -> ExitCode {
    if let Some(code) = t3_config::pages::run(t3_config::definition::<Cli>(), std::env::args_os()) {
        return code;
    }
    let loaded = t3_config::read::<Cli, _>(std::env::args_os(), &[]).unwrap_or_else(|error| error.exit());
    let Command::Run(options) = match loaded.options {
        Ok(cli) => cli.command,
        Err(errors) => {
            for error in errors {
                eprintln!("t3-otlp: {error}");
            }
            return ExitCode::from(USAGE);
        }
    };
    let collector = match prepare(&options) {
        Ok(collector) => collector,
        Err(error) => return failed(&error, USAGE),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::from(error).context("cannot start the runtime"), 1),
    };
    let result = runtime.block_on(export(&options, &collector));
    runtime.shutdown_background();
    match result {
        Ok(counts) if options.from.is_some() && !counts.is_complete() => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => failed(&error, 1),
    }
}

fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("t3-otlp: {error:#}");
    ExitCode::from(code)
}

fn prepare(options: &Run) -> anyhow::Result<Collector> {
    let endpoint = options.endpoint.clone().with_context(|| {
        format!(
            "no collector; set --endpoint, T3_OTLP_ENDPOINT or `endpoint` in {}",
            options.config.display()
        )
    })?;
    let filter = EnvFilter::try_new(&options.log_filter)
        .with_context(|| format!("--log-filter {:?}", options.log_filter))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    Ok(Collector {
        client: HttpClient::new(options.ca_file.as_deref()).context("--ca-file")?,
        endpoint,
        headers: options.header_file.as_deref().map(headers).transpose()?.unwrap_or_default(),
        timeout: options.timeout,
        most_delay: options.max_delay,
    })
}

async fn export(options: &Run, collector: &Collector) -> anyhow::Result<Counts> {
    let batch_size = usize::from(options.batch_size);
    let plan = Plan {
        has_logs: options.signals.contains(&Signal::Logs),
        has_traces: options.signals.contains(&Signal::Traces),
        batch_size,
        batch_time: options.batch_time,
        cursor_file: options.from.is_none().then(|| options.cursor_file.clone()),
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let (send, mut items) = mpsc::channel(batch_size * QUEUED_BATCHES);
    let position = if options.from.is_none() { position(options).await? } else { None };
    let mut counts = Counts::default();
    let source = async {
        match &options.from {
            Some(path) => source::file(path, send).await,
            None => source::follow(&options.units, position.as_deref(), send).await,
        }
    };
    tracing::info!(endpoint = %collector.endpoint, "exporting");
    let done = async {
        let exported = async {
            run::export(&mut items, collector, &plan, &mut counts).await.map_err(anyhow::Error::from)
        };
        tokio::try_join!(source, exported)
    };
    let stopped = tokio::select! {
        done = done => { done?; false }
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
    };
    let Counts { records, rejected, unreadable } = counts;
    let what = if stopped { "stopped" } else { "end of the source" };
    tracing::info!(
        records_total = records,
        rejected_total = rejected,
        unreadable_total = unreadable,
        "{what}"
    );
    Ok(counts)
}

/// Position after which to read. At the first start it is the end of the journal, which is saved
/// immediately: a record that follows is exported even if this process ends before.
async fn position(options: &Run) -> anyhow::Result<Option<String>> {
    if let Some(position) = cursor::read(&options.cursor_file)? {
        return Ok(Some(position));
    }
    let end = source::end_of_journal().await?;
    if let Some(end) = &end {
        cursor::write(&options.cursor_file, end)?;
    }
    Ok(end)
}
