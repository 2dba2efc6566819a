//! The life of the process: listen, reload on SIGHUP, drain on SIGTERM or SIGINT, end at once on a
//! second one.

use std::{
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use t3_journal::Writer;
use t3_record::evidence::Shutdown;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::{
    admission::{
        self, Gate,
        rejections::{self, Rejections},
    },
    cli,
    evidence::{client::EvidenceClient, loop_lag::LoopLag},
    http::guard,
    metrics::{self, Metrics},
    pages::{Pages, ProbeEcho},
    pairing::{self, Pairing},
    process::{
        fd_limit,
        reload::Reloader,
        signals::{SignalEvent, SignalStream},
        systemd::Teller,
    },
    proxy::{http::HttpForwarder, websocket::WebsocketProxy},
    record::{
        reconnects::Reconnects,
        recorder::{RecordObserver, Recorder},
    },
    relay::RelayTimeouts,
    routing::{
        table::{Table, TableError},
        table_file::TableFile,
    },
    server::{app::App, listener},
    settings::{HttpSettings, Timeouts},
    shutdown::{in_flight::InFlight, signal::ShutdownSignal},
    sys::{clock, tcp},
    upstream::pool::Pool,
};

/// dispatch could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The routing table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The listening socket.
    #[error(transparent)]
    Listen(#[from] listener::ListenError),
    /// The socket for metrics.
    #[error(transparent)]
    Metrics(#[from] metrics::server::BindError),
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(std::io::Error),
    /// No thread for notifications to systemd.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// The times that the options ask for.
#[must_use]
pub fn times(options: &cli::Serve) -> Timeouts {
    Timeouts {
        connect: options.legs.connect_timeout,
        handshake: options.legs.handshake_timeout,
        drain: options.listening.drain_time,
        legs: tcp::Patience { keepalive: options.legs.keepalive, user_timeout: options.legs.user_timeout },
        relay: RelayTimeouts {
            close: options.legs.close_timeout,
            // The rest of the drain timeout is for evidence and records.
            going_away: options.listening.drain_time * 3 / 5,
        },
    }
}

/// What the options ask for of HTTP connections.
#[must_use]
pub fn http(options: &cli::Serve) -> HttpSettings {
    let options = &options.http;
    HttpSettings {
        limits: guard::Limits { head_bytes: options.max_header_bytes, fields: options.max_headers },
        patience: guard::Patience {
            head: options.header_timeout,
            body: options.body_timeout,
            idle: options.idle_timeout,
        },
        response: options.response_timeout,
    }
}

fn admission_settings(limits: &cli::Limits) -> admission::Settings {
    admission::Settings {
        max_sessions: limits.max_sessions,
        max_sessions_per_user: limits.max_sessions_per_user,
        upgrade_rate: limits.upgrade_rate,
        upgrade_burst: limits.upgrade_burst,
        allowed_origins: limits.allowed_origin.clone(),
    }
}

fn pairing_settings(options: &cli::Pairing) -> pairing::Settings {
    pairing::Settings {
        mint_command: options.mint_command.clone(),
        mint_socket: options.mint_socket.clone(),
        mint_timeout: options.mint_timeout,
        exchange_timeout: options.exchange_timeout,
        session_check_timeout: options.session_check_timeout,
    }
}

/// Puts the parts together. Needs a tokio runtime.
#[must_use]
pub fn assemble(
    options: &cli::Serve,
    table: Table,
    writer: Writer,
    observer: Option<RecordObserver>,
) -> Arc<App> {
    let metrics = Arc::new(Metrics::default());
    let shutdown = Arc::new(ShutdownSignal::default());
    let evidence =
        EvidenceClient::start(options.evidence.trace_socket.clone(), options.evidence.evidence_timeout);
    let recorder = Arc::new(Recorder {
        writer,
        evidence: evidence.clone(),
        metrics: Arc::clone(&metrics),
        lag: Arc::new(LoopLag::default()),
        reconnects: Mutex::new(Reconnects::default()),
        bursts: Mutex::default(),
        in_flight: InFlight::default(),
        shutdown: Arc::clone(&shutdown),
        runtime: tokio::runtime::Handle::current(),
        observer,
    });
    let (timeouts, http) = (times(options), http(options));
    let trusted = options.routing.trusted_proxy.clone();
    let pool = Arc::new(Pool::new(options.http.pool_size, options.http.pool_idle_time));
    let rejections = Arc::new(Rejections::default());
    let pwa = !options.pages.no_install_tags;
    let echo = Arc::new(ProbeEcho::new(
        options.pages.max_probes,
        options.pages.probe_silence,
        timeouts.handshake,
        Arc::clone(&rejections),
        Arc::clone(&shutdown),
    ));
    let websocket = Arc::new(WebsocketProxy {
        admission: Gate::new(admission_settings(&options.limits)),
        rejections: Arc::clone(&rejections),
        recorder: Arc::clone(&recorder),
        metrics: Arc::clone(&metrics),
        trusted: trusted.clone(),
        timeouts,
        shutdown: Arc::clone(&shutdown),
    });
    let forwarder =
        HttpForwarder { pool: Arc::clone(&pool), metrics: Arc::clone(&metrics), http, timeouts, pwa };
    let pairing = (!options.pairing.no_pairing).then(|| {
        let settings = pairing_settings(&options.pairing);
        Arc::new(Pairing::new(&settings, Arc::clone(&metrics), timeouts, trusted.clone()))
    });
    Arc::new(App {
        table: RwLock::new(Arc::new(table)),
        trusted,
        pairing,
        times: timeouts,
        http,
        pool,
        evidence,
        metrics,
        shutdown,
        recorder,
        connections: InFlight::default(),
        rejections,
        websocket,
        forwarder,
        pages: Pages { echo, pwa },
    })
}

/// Runs until a stop signal.
///
/// # Errors
/// [`ServeError`] when it cannot start.
pub async fn run(options: cli::Serve, writer: Writer) -> Result<(), ServeError> {
    let (file, table) = TableFile::open(options.routing.table.clone())?;
    let mut signals = SignalStream::new().map_err(ServeError::Signals)?;
    fd_limit::check_descriptors(options.limits.max_sessions, fd_limit::raise_descriptor_limit());
    let listeners = listener::sockets(options.listening.listen)?;
    let for_metrics = metrics::server::bind(options.metrics.metrics_listen)?;
    let app = assemble(&options, table, writer, None);
    let ports = start(&app, listeners);
    if let Some(listener) = for_metrics {
        tokio::spawn(metrics::server::serve(
            Arc::clone(&app.metrics),
            {
                let app = Arc::clone(&app);
                move || app.gauges()
            },
            listener,
        ));
    }
    let teller = Arc::new(Teller::new(Arc::clone(&app)).map_err(ServeError::Thread)?);
    let telling = tokio::spawn(Arc::clone(&teller).keep_telling());
    // One is enough: who asks while a reload waits to begin is served by that one.
    let (ask, asked) = mpsc::channel(1);
    let reloader = Reloader::new(Arc::clone(&app), file, ports, Arc::clone(&teller));
    let reloading = tokio::spawn(reloader.follow(asked));
    teller.ready();
    let shutdown = loop {
        match signals.next().await {
            SignalEvent::Reload => {
                let _ = ask.try_send(());
            }
            SignalEvent::Stop(signal) => break Shutdown { signal: Some(signal), at: clock::now() },
        }
    };
    // READY after STOPPING would be a lie.
    reloading.abort();
    teller.stopping();
    let draining = drain(&app, shutdown);
    tokio::pin!(draining);
    loop {
        tokio::select! {
            () = draining.as_mut() => break,
            heard = signals.next() => {
                if let SignalEvent::Stop(_) = heard {
                    tracing::warn!(sessions = app.recorder.in_flight.count(), "second stop signal: exiting without draining");
                    app.shutdown.force();
                }
            }
        }
    }
    telling.abort();
    teller.settle().await;
    Ok(())
}

/// Starts to accept on the listeners, and what runs beside. Returns the ports listened on.
pub fn start(app: &Arc<App>, listeners: Vec<TcpListener>) -> Vec<u16> {
    let mut ports = Vec::new();
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            ports.push(address.port());
            tracing::info!("listening on {address}");
        }
        tokio::spawn(listener::accept(Arc::clone(app), listener));
    }
    app.evidence.watch(ports.clone(), app.table().ports());
    let recorder = Arc::clone(&app.recorder);
    tokio::spawn(async move { recorder.lag.run(|late| recorder.metrics.late(late)).await });
    tokio::spawn(Arc::clone(&app.recorder).write_bursts());
    tokio::spawn(rejections::sum_up(Arc::clone(&app.rejections)));
    ports
}

/// Stops: no new connections, Close 1001 to all sessions, a record for each of them, and an end for
/// requests in flight. `ShutdownSignal::force` makes it quick.
pub async fn drain(app: &Arc<App>, shutdown: Shutdown) {
    let deadline = Instant::now() + app.times.drain;
    tracing::info!(sessions = app.recorder.in_flight.count(), "stopping");
    app.shutdown.trigger(shutdown);
    if timeout_at(deadline, app.recorder.in_flight.none()).await.is_err() {
        tracing::error!(sessions = app.recorder.in_flight.count(), "drain timed out with sessions in flight");
    }
    // What is left of HTTP are requests in flight; idle connections have ended at the word.
    let _ = timeout_at(deadline, app.connections.none()).await;
    // Probes hear the word as sessions do; they are no reason to stop late.
    let _ = timeout_at(deadline, app.pages.echo.none()).await;
    app.rejections.sum_up(u64::MAX);
    app.recorder.write_burst(u64::MAX);
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    let writer = app.recorder.writer.clone();
    let lost = tokio::task::spawn_blocking(move || writer.flush(left)).await.unwrap_or(0);
    if lost > 0 {
        tracing::error!(records = lost, "timed out writing records to journald");
    }
}
