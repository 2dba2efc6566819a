//! Runs the daemon: kernel side, pressure sampler, registered sessions, evidence socket.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use t3_journal::Writer;
use t3_trace_host::{
    accounts, cgroup,
    kernel::{
        EventKind, affects_verdicts,
        view::{EventStream, KernelView},
    },
    proc::network_namespace,
};

use crate::{
    connection, direct, listen,
    metrics::MetricsFile,
    moments::Moments,
    options::Options,
    own_network::Observer,
    places::{Peer, Places},
    poll,
    port_owners::PortOwners,
    pressure::Sampler,
    reconcile::Reconciler,
    state::{OpenSessionsCache, OrphanWriters, Shared},
    status::DaemonStatus,
    subscribers::Subscribers,
    systemd,
    turns::Turns,
};

/// Timeout for records that are being written when the daemon stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which the number of dispatch's user is kept.
const USER_KEPT: Duration = Duration::from_secs(10);
/// Interval of log lines about peers without a place.
const NO_PLACE_LOGGED: Duration = Duration::from_secs(60);

/// Runs until `stop` completes.
///
/// # Errors
/// The socket cannot be created, or a thread cannot be started.
pub async fn run(
    options: Options,
    mut kernel: Box<dyn KernelView>,
    records: Writer,
    stop: impl Future<Output = &'static str>,
) -> anyhow::Result<()> {
    for hook in kernel.hooks() {
        match (&hook.attached, &hook.why) {
            (Some(how), _) => tracing::info!(hook = hook.name, how, "hook attached"),
            (None, why) => {
                let why = why.as_deref().unwrap_or("unknown");
                if affects_verdicts(&hook.name) {
                    tracing::warn!(hook = hook.name, why, "hook not attached");
                } else {
                    tracing::info!(hook = hook.name, why, "hook not attached");
                }
            }
        }
    }
    let events = kernel.take_events();
    let connections = kernel.take_connections();
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let cgroups = cgroup::mount_point(&mountinfo);
    if cgroups.is_none() {
        tracing::warn!("no cgroup version 2 is mounted: records have the pressure of the host only");
    }
    let sampler = Arc::new(Sampler::start()?);
    let cgroup_sampler = Arc::clone(&sampler);
    let found = move |listener: &crate::port_owners::Listener| {
        let owner = &listener.owner;
        tracing::info!(
            pid = owner.pid,
            comm = owner.comm,
            ip = %listener.ip,
            cgroup = owner.cgroup.as_deref().map(|dir| tracing::field::display(dir.display())),
            others = listener.others.len(),
            "serve found"
        );
        // Which of them accepts a connection is known only later.
        let others = listener.others.iter().filter_map(|other| other.cgroup.as_ref());
        for dir in owner.cgroup.iter().chain(others).collect::<std::collections::BTreeSet<_>>() {
            cgroup_sampler.watch(dir);
        }
    };
    let kernel = Arc::new(RwLock::new(kernel));
    let view = Arc::clone(&kernel);
    let likely = move || view.read().unwrap_or_else(PoisonError::into_inner).watched_processes();
    let owners = PortOwners::start(cgroups, Box::new(found), Box::new(likely))
        .context("cannot start the thread that searches listeners")?;
    let netlink = systemd::passed_netlink();
    let observer = Observer::start(netlink.route);
    let reconciler =
        options.to_journald.then(|| Arc::new(Reconciler::new(Some(&options.state_dir), options.spool_size)));
    let own_namespace = network_namespace(std::process::id()).unwrap_or(0);
    let shared = Arc::new(Shared {
        direct: direct::Direct::new(&options, own_namespace, netlink.diag),
        options,
        kernel,
        moments: Moments::default(),
        sampler,
        owners,
        network: Arc::clone(&observer.network),
        sessions: Mutex::default(),
        pick_ups: Mutex::default(),
        connections: Mutex::default(),
        next_connection: AtomicU64::new(1),
        lost_reported: AtomicU64::new(0),
        overflow: Mutex::default(),
        subscribers: Subscribers::default(),
        open_sessions: OpenSessionsCache::default(),
        records,
        reconciler: reconciler.clone(),
        orphan_writers: OrphanWriters::default(),
        turns: Turns::default(),
        stopping: AtomicBool::new(false),
        daemon_status: DaemonStatus::now(),
    });
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(events) = events {
        tasks.spawn(follow(Arc::clone(&shared), events));
    }
    let mut following = None;
    if let Some(connections) = connections {
        following = Some(tokio::spawn(direct::follow(Arc::clone(&shared), connections)));
        tasks.spawn(direct::run(Arc::clone(&shared)));
        if shared.direct.is_configured() {
            shared.apply_watch();
        }
    }
    // After the watch: who finds the socket finds its ports watched.
    let mut listening = listen::bind(&shared.options.socket, &shared.options.group).await?;
    tasks.spawn(observer.run());
    if let Some(reconciler) = &reconciler {
        tasks.spawn(Arc::clone(reconciler).run(Arc::clone(&shared)));
    }
    tasks.spawn(systemd::run(Arc::clone(&shared)));
    if let Some(path) = shared.options.metrics_file.clone() {
        tasks.spawn(MetricsFile::new(path).run(Arc::clone(&shared)));
    }
    tracing::info!(socket = %listening.path().display(), kernel = %shared.kernel().source(), "listening");
    systemd::ready(&shared);
    let mut connections = tokio::task::JoinSet::new();
    let reason = accept(&shared, &mut listening, &mut connections, stop).await;
    tracing::info!(reason, "stopping");
    systemd::stopping();
    shared.stopping.store(true, Ordering::Relaxed);
    drop(listening);
    connections.shutdown().await;
    // Before the wait for its records.
    shared.direct.stop();
    if let Some(following) = following {
        let _ = following.await;
    }
    let mut orphan_writers = shared.orphan_writers.take();
    let finished =
        tokio::time::timeout(STOP_TIMEOUT, async { while orphan_writers.join_next().await.is_some() {} })
            .await;
    if finished.is_err() {
        tracing::error!(
            unfinished = orphan_writers.len(),
            "timed out writing records of direct connections or of an exited dispatch"
        );
    }
    tasks.shutdown().await;
    if let Some(reconciler) = &reconciler {
        reconciler.finish(&shared, STOP_TIMEOUT).await;
    }
    let records = shared.records.clone();
    let left = tokio::task::spawn_blocking(move || records.flush(STOP_TIMEOUT)).await.unwrap_or(0);
    if left > 0 {
        tracing::error!(records = left, "records lost: timed out writing them to journald");
    }
    Ok(())
}

async fn accept(
    shared: &Arc<Shared>,
    listening: &mut listen::Listening,
    connections: &mut tokio::task::JoinSet<()>,
    stop: impl Future<Output = &'static str>,
) -> &'static str {
    tokio::pin!(stop);
    let places = Places::default();
    let mut dispatch_user = DispatchUser::default();
    let mut logged: Option<Instant> = None;
    loop {
        tokio::select! {
            reason = &mut stop => return reason,
            Some(_) = connections.join_next() => {}
            accepted = listening.listener.accept() => match accepted {
                Ok(socket) => {
                    let Ok(peer_user) = socket.peer_cred().map(|peer| peer.uid()) else { continue };
                    let peer = dispatch_user.kind(peer_user, &shared.options.dispatch_user);
                    if let Some(place) = places.take(peer_user, peer) {
                        let shared = Arc::clone(shared);
                        connections.spawn(async move {
                            connection::serve(shared, socket).await;
                            drop(place);
                        });
                    } else {
                        connection::refuse_without_place(&socket, peer_user).await;
                        if logged.is_none_or(|at| at.elapsed() > NO_PLACE_LOGGED) {
                            logged = Some(Instant::now());
                            tracing::warn!(uid = peer_user, "too many connections to the evidence socket; refused");
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept on the evidence socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

/// uid of dispatch's user, looked up at most every ten seconds: the user may be created or
/// renumbered while the daemon runs.
#[derive(Default)]
struct DispatchUser(Option<(Option<u32>, Instant)>);

impl DispatchUser {
    fn kind(&mut self, uid: u32, name: &str) -> Peer {
        if uid == 0 || uid == rustix::process::geteuid().as_raw() {
            return Peer::Root;
        }
        let known = self.0.filter(|(_, at)| at.elapsed() < USER_KEPT);
        let (user, _) = *self.0.insert(known.unwrap_or_else(|| (accounts::uid_of(name), Instant::now())));
        if user == Some(uid) { Peer::Dispatch } else { Peer::Other }
    }
}

/// Drains the kernel's events. The facts are in the maps; only an OOM victim must be read while it
/// exists.
async fn follow(shared: Arc<Shared>, mut events: EventStream) {
    let mut polled = match poll::readable(&events) {
        Ok(polled) => polled,
        Err(error) => {
            tracing::error!(%error, "cannot poll kernel events; OOM victims have no command line");
            return;
        }
    };
    loop {
        let Ok(mut ready) = polled.readable_mut().await else { return };
        while let Some(event) = events.next_event() {
            tracing::debug!(?event, "kernel event");
            if let EventKind::Oom { tgid } = event.kind {
                let state = Arc::clone(&shared);
                tokio::task::spawn_blocking(move || state.owners.oom(tgid, event.at));
            }
        }
        ready.clear_ready();
    }
}
