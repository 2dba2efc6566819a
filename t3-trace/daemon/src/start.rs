//! Start of the daemon from its options: log, record writer, kernel side, runtime.
//! `t3-trace-daemon` and `t3-trace daemon` both call it.

use anyhow::Context;
use t3_journal::{Sink, Writer};
use t3_record::wire::Hook;
use t3_trace_host::{
    clock,
    kernel::{
        self, Functions, Kernel, SWITCHED_OFF, WEBSOCKETS,
        view::{KernelView, NoKernel},
    },
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::DaemonArgs,
    direct::{Watch, WatchedPort},
    metrics,
    options::Options,
    run::run,
};

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// The log, a thread or the socket cannot be set up.
pub fn start(args: DaemonArgs) -> anyhow::Result<()> {
    let sink = args.log.resolve();
    t3_journal::init("t3-trace", sink, &args.log_filter)?;
    let records = Writer::start("t3-dispatch", sink, t3_journal::DEFAULT_BOUND)
        .context("cannot start the record writer")?;
    let (watch, watch_units) = Watch::split(args.watch);
    let kernel = load(args.no_ebpf, args.hooks, has_websockets(&watch));
    let options = Options {
        socket: args.socket,
        dispatch_user: args.dispatch_user,
        group: args.group,
        state_dir: args.state_dir,
        spool_size: args.spool_size,
        watch,
        watch_units,
        watch_serve: !args.no_watch_serve,
        metrics_file: args.metrics_file,
        metrics_interval: metrics::EVERY,
        publish_only: false,
        to_journald: sink == Sink::Journald,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        run(options, kernel, records, stop).await
    })
}

fn has_websockets(ports: &[WatchedPort]) -> bool {
    ports.iter().any(|port| port.is_websocket)
}

/// The functions by which Close frames are read are hooked together, or none is.
fn warn_of_missing(hooks: &[&Hook]) {
    if let Some(hook) = hooks.iter().find(|hook| hook.attached.is_none()) {
        let why = hook.why.as_deref().unwrap_or_default();
        tracing::warn!(hook = hook.name, why, "websocket of [[watch]] has no effect: no ws_code and ws_from");
    }
}

/// The kernel side, or the reason why there is none: pressure is available in any case.
fn load(no_ebpf: bool, functions: Functions, has_websockets: bool) -> Box<dyn KernelView> {
    if no_ebpf {
        return Box::new(NoKernel { why: format!("{SWITCHED_OFF} --no-ebpf") });
    }
    if !clock::is_of_host() {
        let why = "t3-trace runs in a time namespace, and kernel events have the clock of the host; start it outside";
        tracing::warn!("{why}");
        return Box::new(NoKernel { why: why.to_owned() });
    }
    // The daemon only logs them.
    let socket_events = tracing::enabled!(target: "t3_trace_daemon::run", tracing::Level::DEBUG);
    let websockets = if has_websockets { WEBSOCKETS } else { 0 };
    let options = kernel::Options { functions, socket_events, websockets, ..kernel::Options::default() };
    match Kernel::load(&options) {
        Ok(kernel) => {
            warn_of_missing(
                &kernel.hooks().iter().filter(|hook| hook.name.ends_with("msg")).collect::<Vec<_>>(),
            );
            Box::new(kernel)
        }
        Err(error) => Box::new(NoKernel { why: format!("{:#}", anyhow::Error::from(error)) }),
    }
}
