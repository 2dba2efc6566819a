//! Start and shutdown of the process: listens, reloads on SIGHUP, drains on SIGTERM or SIGINT,
//! exits immediately on a second one.

use std::{
    net::{IpAddr, Ipv4Addr},
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
        self, Admission,
        connections::{ConnectionLimits, ConnectionQuota},
        quota::UserQuota,
        rejections::{self, Rejections},
    },
    cli,
    config::{self, trust::TrustError},
    evidence::{client::EvidenceClient, loop_lag::LoopLag},
    fd_store::{Store, descriptors},
    http::guard,
    metrics::{self, Metrics, reject_reason::RejectReason},
    pages::{
        Pages, ProbeEcho, ProbeSettings,
        probe_token::{ProbeToken, ProbeTokenError},
    },
    pairing::{self, Pairing},
    process::{
        fd_limit,
        reload::Reloader,
        restart,
        signals::{SignalEvent, SignalStream},
        systemd::SystemdNotifier,
    },
    proxy::{http::HttpForwarder, websocket::WebsocketProxy},
    record::{
        reconnects::Reconnects,
        recorder::{RecordObserver, Recorder},
        serve_versions::ServeVersions,
    },
    relay::RelayTimeouts,
    routing::{
        table::{Route, Table, TableError},
        table_file::TableFile,
        trust::Trust,
    },
    server::{
        app::App,
        listener::{self, Passed},
        overload::Refuser,
    },
    settings::{HttpSettings, Timeouts},
    shutdown::{in_flight::InFlight, signal::ShutdownSignal},
    sys::{clock, listeners, socket_owner::SocketOwners, tcp::TcpTimeouts},
    upstream::{
        pool::Pool,
        serve_owner::{OwnerError, ServeOwners},
    },
};

/// Error that prevents the start of t3-dispatch.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Trust(Vec<TrustError>),
    #[error(transparent)]
    Listen(#[from] listener::ListenError),
    #[error(transparent)]
    Metrics(#[from] metrics::server::BindError),
    #[error(transparent)]
    ProbeToken(#[from] ProbeTokenError),
    #[error("cannot keep sessions for the next process: {0}")]
    Store(std::io::Error),
    #[error("cannot receive signals: {0}")]
    Signals(std::io::Error),
    #[error("cannot start the thread for systemd notifications: {0}")]
    Thread(std::io::Error),
}

/// Timeouts from the options.
#[must_use]
pub fn timeouts(options: &cli::Serve) -> Timeouts {
    Timeouts {
        connect: options.legs.connect_timeout,
        handshake: options.legs.handshake_timeout,
        drain: options.listening.drain_time,
        legs: TcpTimeouts { keepalive: options.legs.keepalive, user_timeout: options.legs.user_timeout },
        relay: RelayTimeouts {
            close: options.legs.close_timeout,
            // The rest of the drain timeout is for evidence and records.
            going_away: options.listening.drain_time * 3 / 5,
        },
    }
}

/// HTTP settings from the options.
#[must_use]
pub fn http_settings(options: &cli::Serve) -> HttpSettings {
    let options = &options.http;
    HttpSettings {
        limits: guard::Limits { head_bytes: options.max_header_bytes, fields: options.max_headers },
        client: guard::ClientTimeouts {
            head: options.header_timeout,
            body: options.body_timeout,
            idle: options.idle_timeout,
        },
        response_timeout: options.response_timeout,
    }
}

fn admission_settings(limits: &cli::LimitOptions) -> admission::AdmissionSettings {
    admission::AdmissionSettings {
        max_sessions: limits.max_sessions,
        max_sessions_per_user: limits.max_sessions_per_user,
        upgrade_rate: limits.upgrade_rate,
        upgrade_burst: limits.upgrade_burst,
        allowed_origins: limits.allowed_origin.clone(),
    }
}

fn connection_limits(limits: &cli::LimitOptions) -> ConnectionLimits {
    ConnectionLimits {
        total: limits.max_connections.get(),
        per_address: limits.max_connections_per_address.get(),
        per_network: limits.max_connections_per_network.get(),
    }
}

fn probe_settings(options: &cli::PageOptions, timeouts: &Timeouts) -> ProbeSettings {
    ProbeSettings {
        max: options.max_probes,
        max_per_address: options.max_probes_per_address,
        idle_timeout: options.probe_silence,
        handshake_timeout: timeouts.handshake,
    }
}

fn pairing_settings(options: &cli::PairingOptions) -> pairing::PairingSettings {
    pairing::PairingSettings {
        mint_command: options.mint_command.clone(),
        mint_socket: options.mint_socket.clone(),
        mint_timeout: options.mint_timeout,
        exchange_timeout: options.exchange_timeout,
        session_check_timeout: options.session_check_timeout,
        max_per_user: options.max_pairings_per_user,
    }
}

/// Checks of the owners of serve ports, whose failures are logged and counted.
fn serve_owners(sockets: Arc<SocketOwners>, rejections: &Arc<Rejections>) -> ServeOwners {
    if !sockets.sees_all_users() {
        tracing::error!(
            source = sockets.source(),
            "cannot see the users of other processes: t3-dispatch is in a user namespace; start t3-dispatch-diag.socket"
        );
    }
    let rejections = Arc::clone(rejections);
    ServeOwners::new(
        sockets,
        Arc::new(move |route: &Route, error: &OwnerError| {
            rejections.record(RejectReason::ForeignListener, &route.os_user, format_args!("502: {error}"));
        }),
    )
}

/// Creates the shared state. Needs a tokio runtime.
#[must_use]
pub fn assemble(
    options: &cli::Serve,
    table: Table,
    trust: Trust,
    writer: Writer,
    observer: Option<RecordObserver>,
    sockets: SocketOwners,
    store: Option<Store>,
) -> Arc<App> {
    let metrics = Arc::new(Metrics::default());
    let shutdown = Arc::new(ShutdownSignal::default());
    let evidence =
        EvidenceClient::start(options.evidence.trace_socket.clone(), options.evidence.evidence_timeout);
    let versions = Arc::new(ServeVersions::default());
    let recorder = Arc::new(Recorder {
        writer,
        evidence: evidence.clone(),
        metrics: Arc::clone(&metrics),
        lag: Arc::new(LoopLag::default()),
        reconnects: Mutex::new(Reconnects::default()),
        bursts: Mutex::default(),
        attempts: Mutex::default(),
        in_flight: InFlight::default(),
        versions: Arc::clone(&versions),
        shutdown: Arc::clone(&shutdown),
        runtime: tokio::runtime::Handle::current(),
        observer,
    });
    let sockets = Arc::new(sockets);
    let (timeouts, http) = (timeouts(options), http_settings(options));
    let pool = Arc::new(Pool::new(options.http.pool_size, options.http.pool_idle_time));
    let rejections = Arc::new(Rejections::default());
    let pwa = !options.pages.no_install_tags;
    let owners = serve_owners(Arc::clone(&sockets), &rejections);
    let probes = probe_settings(&options.pages, &timeouts);
    let echo = Arc::new(ProbeEcho::new(probes, Arc::clone(&rejections), Arc::clone(&shutdown)));
    let websocket = Arc::new(WebsocketProxy {
        admission: Admission::new(admission_settings(&options.limits)),
        rejections: Arc::clone(&rejections),
        recorder: Arc::clone(&recorder),
        metrics: Arc::clone(&metrics),
        timeouts,
        shutdown: Arc::clone(&shutdown),
        owners: owners.clone(),
        store,
    });
    let (for_http, metrics_for_http) = (Arc::clone(&pool), Arc::clone(&metrics));
    let forwarder = HttpForwarder {
        pool: for_http,
        metrics: metrics_for_http,
        versions,
        rejections: Arc::clone(&rejections),
        http,
        timeouts,
        pwa,
        owners: owners.clone(),
    };
    let pairing = (!options.pairing.no_pairing).then(|| {
        let settings = pairing_settings(&options.pairing);
        Arc::new(Pairing::new(&settings, Arc::clone(&metrics), Arc::clone(&rejections), timeouts, owners))
    });
    Arc::new(App {
        table: RwLock::new(Arc::new(table)),
        trust,
        sockets,
        pairing,
        timeouts,
        http,
        pool,
        evidence,
        metrics,
        shutdown,
        recorder,
        connections: InFlight::default(),
        quota: ConnectionQuota::new(connection_limits(&options.limits)),
        // The connections limit the total.
        requests: UserQuota::new(usize::MAX, options.limits.max_requests_per_user.get()),
        refuser: Refuser::default(),
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
pub async fn run(mut options: cli::Serve, writer: Writer) -> Result<(), ServeError> {
    let trust = config::trust::load(&options.trust).map_err(ServeError::Trust)?;
    let (file, table) = TableFile::open(options.routing.table.clone())?;
    let token = options.pages.probe_token_file.path().map(ProbeToken::read).transpose()?;
    let mut signals = SignalStream::new().map_err(ServeError::Signals)?;
    fd_limit::fit(&mut options.limits, options.pages.max_probes, fd_limit::raise_descriptor_limit());
    let Passed { tcp, sock_diag, state, legs, foreign } = listener::passed()?;
    let listeners = listener::sockets(tcp, options.listening.listen)?;
    let metrics_listener = metrics::server::bind(options.metrics.metrics_listen)?;
    let own = own_ports(listeners.iter().chain(&metrics_listener));
    table.check_ports(&own, file.path())?;
    let (store, predecessor) =
        restart::open(state, legs, descriptors::capacity(), options.limits.max_sessions)
            .map_err(ServeError::Store)?;
    if let Some(store) = &store {
        foreign.into_iter().for_each(|name| drop(store.descriptors.remove(name)));
    }
    let sockets = SocketOwners::new(sock_diag);
    let app = assemble(&options, table, trust, writer, None, sockets, store.clone());
    if app.table().is_empty() {
        tracing::warn!("routing table {} is empty: every request gets 403", file.path().display());
    }
    if let Some(token) = token {
        app.pages.echo.require(token);
    }
    // t3-trace knows by its ports which process this one succeeds.
    let table = app.table();
    app.evidence.watch(ports_of(&listeners), table.ports(), &table.port_users());
    restart::pick_up(&app, predecessor);
    if let Some(store) = store.clone() {
        restart::note_exists(&store).map_err(ServeError::Store)?;
        tokio::spawn(restart::note_alive(store));
    }
    let ports = start(&app, listeners);
    if let Some(listener) = metrics_listener {
        tokio::spawn(metrics::server::serve(
            Arc::clone(&app.metrics),
            {
                let app = Arc::clone(&app);
                move || app.gauges()
            },
            listener,
        ));
    }
    let notifier = Arc::new(SystemdNotifier::new(Arc::clone(&app)).map_err(ServeError::Thread)?);
    let notifying = tokio::spawn(Arc::clone(&notifier).run());
    // Capacity 1: a request while another one is pending needs no reload of its own.
    let (reload, reload_requests) = mpsc::channel(1);
    let reloader = Reloader::new(Arc::clone(&app), file, ports, own, Arc::clone(&notifier));
    let reloading = tokio::spawn(reloader.run(reload_requests));
    notifier.ready();
    let (signal, shutdown) = loop {
        match signals.next().await {
            SignalEvent::Reload => {
                let _ = reload.try_send(());
            }
            SignalEvent::Stop(signal) => break (signal, Shutdown { signal: Some(signal), at: clock::now() }),
        }
    };
    // A reload that completes now would report READY after STOPPING.
    reloading.abort();
    notifier.stopping();
    let draining = async {
        match &store {
            // `systemctl stop` sends SIGINT (KillSignal= in the unit).
            Some(store) if signal == libc::SIGTERM => {
                let deadline = Instant::now() + app.timeouts.drain;
                restart::hand_over(&app, store, shutdown, deadline).await;
                finish_records(&app, deadline).await;
            }
            _ => drain(&app, shutdown).await,
        }
    };
    tokio::pin!(draining);
    loop {
        tokio::select! {
            () = draining.as_mut() => break,
            event = signals.next() => {
                if let SignalEvent::Stop(_) = event {
                    tracing::warn!(sessions = app.recorder.in_flight.count(), "second stop signal: exiting without draining");
                    app.shutdown.force();
                }
            }
        }
    }
    notifying.abort();
    notifier.flush().await;
    Ok(())
}

/// Returns the ports at which a connection to 127.0.0.1 reaches one of these listeners.
fn own_ports<'a>(listeners: impl Iterator<Item = &'a TcpListener>) -> Vec<u16> {
    let addresses = listeners.filter_map(|listener| listener.local_addr().ok());
    let serve = IpAddr::from(Ipv4Addr::LOCALHOST);
    addresses
        .filter(|address| listeners::accepts(address.ip().to_canonical(), serve))
        .map(|address| address.port())
        .collect()
}

fn ports_of(listeners: &[TcpListener]) -> Vec<u16> {
    listeners.iter().filter_map(|listener| Some(listener.local_addr().ok()?.port())).collect()
}

/// Starts the accept loops and the background tasks. Returns the listening ports.
pub fn start(app: &Arc<App>, listeners: Vec<TcpListener>) -> Vec<u16> {
    let ports = ports_of(&listeners);
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            tracing::info!("listening on {address}");
        }
        tokio::spawn(listener::accept(Arc::clone(app), listener));
    }
    let table = app.table();
    app.evidence.watch(ports.clone(), table.ports(), &table.port_users());
    let recorder = Arc::clone(&app.recorder);
    tokio::spawn(async move { recorder.lag.run(|late| recorder.metrics.loop_lag(late)).await });
    tokio::spawn(Arc::clone(&app.recorder).write_bursts());
    tokio::spawn(Arc::clone(&app.recorder).write_attempts_regularly());
    tokio::spawn(super::memory::return_regularly(Arc::clone(&app.recorder)));
    tokio::spawn(rejections::sum_up(Arc::clone(&app.rejections)));
    ports
}

/// Shuts down: no new connections, Close 1001 and a record for each session, completion of HTTP
/// requests in flight. `ShutdownSignal::force` ends the wait for sessions.
pub async fn drain(app: &Arc<App>, shutdown: Shutdown) {
    let deadline = Instant::now() + app.timeouts.drain;
    tracing::info!(sessions = app.recorder.in_flight.count(), "stopping");
    app.shutdown.trigger(shutdown);
    if timeout_at(deadline, app.recorder.in_flight.none()).await.is_err() {
        tracing::error!(sessions = app.recorder.in_flight.count(), "drain timed out with sessions in flight");
    }
    // HTTP requests in flight; idle connections ended with the signal.
    let _ = timeout_at(deadline, app.connections.none()).await;
    // Probes end with the signal like sessions.
    let _ = timeout_at(deadline, app.pages.echo.none()).await;
    finish_records(app, deadline).await;
}

/// Writes what is summed up, and waits for journald.
async fn finish_records(app: &App, deadline: Instant) {
    app.rejections.sum_up(u64::MAX);
    app.recorder.write_burst(u64::MAX);
    app.recorder.write_attempts();
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    let writer = app.recorder.writer.clone();
    let lost = tokio::task::spawn_blocking(move || writer.flush(left)).await.unwrap_or(0);
    if lost > 0 {
        tracing::error!(records = lost, "timed out writing records to journald");
    }
}
