//! The life of the process: listen, tell systemd, reload on SIGHUP, drain on SIGTERM or SIGINT.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use t3_journal::Writer;
use t3_record::evidence::Shutdown;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, interval, timeout_at},
};

use crate::{
    app::{App, Cases, Times},
    case::{self, Witness},
    cli, clock, lag, listen,
    recent::Recent,
    relay, resources,
    stop::Stop,
    table::{Table, TableError},
    tcp,
    trace::Trace,
};

/// dispatch could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The routing table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The listening socket.
    #[error(transparent)]
    Listen(#[from] listen::ListenError),
    /// Signals cannot be received.
    #[error("receive signals: {0}")]
    Signals(std::io::Error),
}

/// The times that the options ask for.
#[must_use]
pub fn times(options: &cli::Serve) -> Times {
    Times {
        connect: options.connect_timeout,
        handshake: options.handshake_timeout,
        idle: options.idle_timeout,
        drain: options.drain_time,
        legs: tcp::Patience { keepalive: options.keepalive, user_timeout: options.user_timeout },
        relay: relay::Patience {
            close: options.close_timeout,
            // The rest of the time to stop belongs to evidence and records.
            farewell: options.drain_time * 3 / 5,
        },
    }
}

/// Puts the parts together. Needs a tokio runtime.
#[must_use]
pub fn assemble(options: &cli::Serve, table: Table, writer: Writer, witness: Option<Witness>) -> Arc<App> {
    Arc::new(App {
        table: RwLock::new(Arc::new(table)),
        trusted: options.trusted_proxy.clone(),
        times: times(options),
        writer,
        trace: Trace::start(options.trace_socket.clone()),
        lag: Arc::new(lag::Meter::default()),
        stop: Arc::new(Stop::default()),
        cases: Cases::default(),
        recent: Mutex::new(Recent::default()),
        bursts: Mutex::default(),
        witness,
        runtime: tokio::runtime::Handle::current(),
    })
}

/// Runs until told to stop.
///
/// # Errors
/// [`ServeError`] when it cannot start.
pub async fn run(options: cli::Serve, writer: Writer) -> Result<(), ServeError> {
    let table = Table::load(&options.table)?;
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    resources::raise_descriptor_limit();
    let listeners = listen::sockets(options.listen)?;
    let app = assemble(&options, table, writer, None);
    let ports = start(&app, listeners);
    tokio::spawn(watchdog());
    notify(&[sd_notify::NotifyState::Ready]);
    let shutdown = loop {
        match signals.next().await {
            Heard::Reload => reload(&app, &options.table, &ports),
            Heard::Stop(signal) => break Shutdown { signal: Some(signal), at: clock::now() },
        }
    };
    drain(&app, shutdown).await;
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
        tokio::spawn(listen::accept(Arc::clone(app), listener));
    }
    app.trace.watch(ports.clone(), app.table().ports());
    let lag = Arc::clone(&app.lag);
    tokio::spawn(async move { lag.run().await });
    tokio::spawn(sum_bursts_up(Arc::clone(app)));
    ports
}

/// Reads the routing table again; a bad one changes nothing.
pub fn reload(app: &App, path: &Path, ports: &[u16]) {
    match Table::load(path) {
        Ok(table) => {
            let logins = table.len();
            app.trace.watch(ports.to_vec(), table.ports());
            *app.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
            // Said only once it holds.
            tracing::info!("routing table {}: {logins} logins", path.display());
        }
        Err(error) => tracing::error!("{error}; keeping the table from before"),
    }
}

/// Stops: no new connections, goodbye to all sessions, and a record for each of them.
pub async fn drain(app: &Arc<App>, shutdown: Shutdown) {
    let deadline = Instant::now() + app.times.drain;
    notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!(sessions = app.cases.count(), "stopping");
    app.stop.say(shutdown);
    if timeout_at(deadline, app.cases.none()).await.is_err() {
        tracing::error!(
            sessions = app.cases.count(),
            "sessions without a record at the end of the drain time"
        );
    }
    case::write_burst(app, app.bursts.lock().unwrap_or_else(PoisonError::into_inner).cuts.sum_up(u64::MAX));
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    let writer = app.writer.clone();
    let lost = tokio::task::spawn_blocking(move || writer.flush(left)).await.unwrap_or(0);
    if lost > 0 {
        tracing::error!(records = lost, "journald did not take these records in time");
    }
}

async fn sum_bursts_up(app: Arc<App>) {
    let mut ticks = interval(Duration::from_millis(500));
    loop {
        ticks.tick().await;
        let sum = app.bursts.lock().unwrap_or_else(PoisonError::into_inner).cuts.sum_up(clock::now());
        case::write_burst(&app, sum);
    }
}

/// Tells systemd, if it wants to know, that the event loop turns.
async fn watchdog() {
    let mut micros = 0;
    if !sd_notify::watchdog_enabled(false, &mut micros) || micros == 0 {
        return;
    }
    let mut ticks = interval(Duration::from_micros(micros) / 2);
    loop {
        ticks.tick().await;
        notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!("tell systemd: {error}");
    }
}

enum Heard {
    Reload,
    Stop(i32),
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.hangup.recv() => Heard::Reload,
            _ = self.terminate.recv() => Heard::Stop(SignalKind::terminate().as_raw_value()),
            _ = self.interrupt.recv() => Heard::Stop(SignalKind::interrupt().as_raw_value()),
        }
    }
}
