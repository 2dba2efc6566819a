//! `t3-probe`: reads the command line and starts the legs.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use t3_http_client::HttpClient;
use t3_probe::{
    cli::{self, Cli, Command, LegOptions, LegsError, Once, Run},
    dial::Network,
    leg::Leg,
    leg_states::LegStates,
    metrics::Metrics,
    once, page,
    report::Report,
    run,
};
use t3_record::probe::{Disconnect, State};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    if let Some(code) = t3_config::pages::run(t3_config::definition::<Cli>(), std::env::args_os()) {
        return code;
    }
    let loaded = t3_config::read::<Cli, _>(std::env::args_os(), &[]).unwrap_or_else(|error| error.exit());
    let command = match loaded.options {
        Ok(cli) => cli.command,
        Err(errors) => {
            for error in errors {
                eprintln!("t3-probe: {error}");
            }
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::from(error).context("cannot start the runtime")),
    };
    let result = runtime.block_on(async {
        match command {
            Command::Run(options) => observe(options).await.map(|()| ExitCode::SUCCESS),
            Command::Once(options) => try_once(&options).await,
        }
    });
    runtime.shutdown_background();
    result.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("t3-probe: {error:#}");
    // Invalid combination of options: a usage error.
    ExitCode::from(if error.is::<LegsError>() { 2 } else { 1 })
}

fn network(options: &LegOptions) -> anyhow::Result<(Vec<Leg>, Network)> {
    let legs = options.legs()?;
    let client =
        HttpClient::new(options.ca_file.as_deref()).map_err(|error| LegsError::CaFile(error.to_string()))?;
    Ok((legs, Network::new(client)))
}

async fn try_once(options: &Once) -> anyhow::Result<ExitCode> {
    let (legs, network) = network(&options.legs)?;
    let rows = once::all(legs, Arc::new(network), options.legs.timeouts()).await;
    let clean = rows.iter().all(|row| row.state == State::Clean);
    let text = if options.json {
        let report = serde_json::to_string_pretty(&Report::new(&rows)).context("cannot write the report")?;
        format!("{report}\n")
    } else {
        once::table(&rows)
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the result")?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn observe(options: Run) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&options.log_filter)
        .with_context(|| format!("--log-filter {:?}", options.log_filter))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(cli::wants_colour(
            std::io::stderr().is_terminal(),
            std::env::var_os("NO_COLOR").as_deref(),
        ))
        .with_target(false)
        .init();
    let (legs, network) = network(&options.legs)?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot serve metrics on {} (--listen)", options.listen))?;
    let states = Arc::new(LegStates::new(
        &legs,
        Metrics::new().context("cannot register the metrics")?,
        options.window,
    ));
    let on_disconnect: run::OnDisconnect =
        if options.no_json { Arc::new(log) } else { Arc::new(log_and_print) };
    for leg in legs {
        tracing::info!(leg = leg.name, url = %leg.url, "observing");
        tokio::spawn(run::leg(
            leg,
            network.clone(),
            options.legs.timeouts(),
            Arc::clone(&states),
            Arc::clone(&on_disconnect),
        ));
    }
    tracing::info!("metrics on http://{}/metrics", options.listen);
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    tokio::select! {
        () = page::serve(listener, states) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn log(disconnect: &Disconnect) {
    let Disconnect { leg, reason, phase, detail, .. } = disconnect;
    tracing::warn!(leg, %reason, %phase, "disconnected: {detail}");
}

/// JSON goes to stdout and log lines go to stderr, so that they can be collected separately.
fn log_and_print(disconnect: &Disconnect) {
    log(disconnect);
    if let Ok(line) = serde_json::to_string(disconnect) {
        // stdout may be closed; probing continues.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}
