//! The daemon: holds the kernel side, the pressure sampler and the registered sessions together,
//! and serves the evidence socket.
//!
//! The only privileged part of the project. It parses nothing that comes from the network: all it
//! hears comes over a Unix socket whose peer's uid the kernel vouches for.

use std::{
    collections::HashMap,
    future::Future,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use t3_journal::Writer;
use t3_record::{
    evidence::Nanos,
    wire::{FromTrace, Status},
};
use t3_trace_host::{
    cgroup,
    kernel::{
        What,
        view::{EventStream, KernelView},
    },
};
use tokio::sync::mpsc;

use crate::{
    connection, listen,
    open_sessions::Watching,
    orphans::Link,
    poll,
    port_owners::Owners,
    pressure::Sampler,
    sessions::{LinkId, Sessions},
    status::Standing,
    subscribers::Hub,
    systemd,
};

/// How long a stopping daemon waits for records that are being written.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Connections that may be open at once, of any role.
const MAX_CONNECTIONS: usize = 256;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub socket: PathBuf,
    /// The user that may be dispatch, beside root and our own.
    pub dispatch_user: String,
    /// The group that may subscribe.
    pub group: String,
    /// Records go to journald, where they can be looked up again.
    pub to_journald: bool,
}

#[derive(Debug, Default)]
pub(crate) struct LinkState {
    pub(crate) pid: Option<u32>,
    pub(crate) listen: Vec<u16>,
    pub(crate) serve: Vec<u16>,
    /// Where messages to this dispatch go; `None` when its connection has ended.
    pub(crate) answers: Option<mpsc::Sender<FromTrace>>,
    /// Until when it was asked to count aloud.
    pub(crate) wanted_until: Nanos,
}

/// What all tasks share. No lock is held across a wait.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) kernel: Mutex<Box<dyn KernelView>>,
    pub(crate) sampler: Arc<Sampler>,
    pub(crate) owners: Owners,
    pub(crate) sessions: Mutex<Sessions>,
    pub(crate) links: Mutex<HashMap<LinkId, LinkState>>,
    pub(crate) next_link: AtomicU64,
    pub(crate) lost_told: AtomicU64,
    pub(crate) hub: Hub,
    pub(crate) watching: Watching,
    pub(crate) records: Writer,
    pub(crate) mourners: Mourners,
    pub(crate) stopping: AtomicBool,
    pub(crate) standing: Standing,
}

/// Tasks that must not be cut off when the daemon stops.
#[derive(Default)]
pub(crate) struct Mourners(Mutex<tokio::task::JoinSet<()>>);

impl Mourners {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    pub(crate) fn take(&self) -> tokio::task::JoinSet<()> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ports of all connections, each once.
pub(crate) fn union(links: &HashMap<LinkId, LinkState>, pick: fn(&LinkState) -> &Vec<u16>) -> Vec<u16> {
    let mut ports: Vec<u16> = links.values().flat_map(|state| pick(state).iter().copied()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

impl Shared {
    pub(crate) fn kernel(&self) -> MutexGuard<'_, Box<dyn KernelView>> {
        lock(&self.kernel)
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.sessions)
    }

    pub(crate) fn join(&self, pid: Option<u32>, answers: mpsc::Sender<FromTrace>) -> Link {
        let id = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        lock(&self.links).insert(id, LinkState { pid, answers: Some(answers), ..LinkState::default() });
        Link::new(id, pid)
    }

    /// A connection of dispatch ended; returns how many sessions hung on it. What it watched is
    /// watched on: it will come back.
    pub(crate) fn leave(&self, link: LinkId) -> usize {
        let mut links = lock(&self.links);
        if links.len() > 1 {
            links.remove(&link);
        } else if let Some(state) = links.get_mut(&link) {
            state.pid = None;
            state.answers = None;
        }
        drop(links);
        self.sessions().detach(link, t3_trace_host::clock::monotonic())
    }

    /// A dispatch that lives is no longer waited for.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn is_connected(&self, pid: Option<u32>) -> bool {
        lock(&self.links).values().any(|link| link.pid.is_some() && link.pid == pid)
    }

    pub(crate) fn watch(&self, link: LinkId, pid: Option<u32>, listen: Vec<u16>, serve: Vec<u16>) {
        let mut links = lock(&self.links);
        // What a connection that has ended had left behind makes room for what its successor says.
        links.retain(|id, state| *id == link || state.pid.is_some());
        let state = links.entry(link).or_default();
        (state.pid, state.listen, state.serve) = (pid, listen, serve);
        let (listen, serve) = (union(&links, |state| &state.listen), union(&links, |state| &state.serve));
        let of = |state: &LinkState| {
            state.pid.map(|pid| state.serve.iter().map(move |port| (*port, pid)).collect::<Vec<_>>())
        };
        let wanted: Vec<(u16, u32)> = links.values().filter_map(of).flatten().collect();
        drop(links);
        self.owners.want(wanted);
        if let Err(error) = self.kernel().watch(&listen, &serve) {
            tracing::error!(
                error,
                "the kernel side does not watch the new ports; closes there have no kernel evidence"
            );
        }
    }

    /// Events lost since this was asked last.
    pub(crate) fn lost_delta(&self) -> u64 {
        let now = self.kernel().lost().total();
        now.saturating_sub(self.lost_told.swap(now, Ordering::Relaxed))
    }

    pub(crate) fn status(&self) -> FromTrace {
        let kernel = self.kernel();
        let lost = kernel.lost();
        let (source, hooks) = (kernel.source(), kernel.hooks());
        let inventory = self.standing.inventory(|| kernel.inventory());
        drop(kernel);
        let links = lock(&self.links);
        let dispatch = links.values().any(|link| link.pid.is_some());
        let (listen, serve) = (union(&links, |state| &state.listen), union(&links, |state| &state.serve));
        drop(links);
        FromTrace::Status(Box::new(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: Some(source),
            hooks,
            sessions: self.sessions().len() as u64,
            subscribers: self.hub.len() as u64,
            dispatch,
            lost: lost.total(),
            map_full: lost.map_full(),
            uptime_s: Some(self.standing.uptime_s()),
            listen,
            serve,
            tables: inventory.tables,
            events: inventory.events,
            missing: inventory.missing,
            clock_moved_ms: Some(self.standing.clock_moved_ms()),
        }))
    }

    pub(crate) fn summary(&self) -> String {
        let source = self.kernel().source();
        format!("kernel={source} sessions={} subscribers={}", self.sessions().len(), self.hub.len())
    }
}

/// Runs until `stop` is done.
///
/// # Errors
/// When the socket cannot be made, or there are no threads to be had.
pub async fn run(
    options: Options,
    mut kernel: Box<dyn KernelView>,
    records: Writer,
    stop: impl Future<Output = &'static str>,
) -> anyhow::Result<()> {
    for hook in kernel.hooks() {
        match (&hook.attached, &hook.why) {
            (Some(how), _) => tracing::info!(hook = hook.name, how, "attached"),
            (None, why) => {
                tracing::warn!(hook = hook.name, why = why.as_deref().unwrap_or("unknown"), "not attached");
            }
        }
    }
    let events = kernel.take_events();
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let cgroups = cgroup::mount_point(&mountinfo);
    if cgroups.is_none() {
        tracing::warn!("no cgroup version 2 is mounted: records have the machine's pressure, not the user's");
    }
    let sampler = Arc::new(Sampler::start()?);
    let watching = Arc::clone(&sampler);
    let found = move |owner: &crate::port_owners::Owner| {
        tracing::info!(pid = owner.pid, comm = owner.comm, cgroup = ?owner.cgroup, "found a serve");
        if let Some(dir) = &owner.cgroup {
            watching.watch(dir);
        }
    };
    let owners = Owners::start(cgroups, Box::new(found)).context("start the thread that looks for serves")?;
    let mut listening = listen::bind(&options.socket, &options.group).await?;
    let shared = Arc::new(Shared {
        options,
        kernel: Mutex::new(kernel),
        sampler,
        owners,
        sessions: Mutex::default(),
        links: Mutex::default(),
        next_link: AtomicU64::new(1),
        lost_told: AtomicU64::new(0),
        hub: Hub::default(),
        watching: Watching::default(),
        records,
        mourners: Mourners::default(),
        stopping: AtomicBool::new(false),
        standing: Standing::now(),
    });
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(events) = events {
        tasks.spawn(follow(Arc::clone(&shared), events));
    }
    tasks.spawn(systemd::keep_telling(Arc::clone(&shared)));
    tracing::info!(socket = %listening.path().display(), "{}", shared.summary());
    systemd::ready(&shared);
    let mut links = tokio::task::JoinSet::new();
    let reason = accept(&shared, &mut listening, &mut links, stop).await;
    tracing::info!(reason, "stopping");
    systemd::stopping();
    shared.stopping.store(true, Ordering::Relaxed);
    drop(listening);
    links.shutdown().await;
    let mut mourners = shared.mourners.take();
    let finished =
        tokio::time::timeout(STOP_WITHIN, async { while mourners.join_next().await.is_some() {} }).await;
    if finished.is_err() {
        tracing::error!("the records of a dispatch that died were not all written before the end");
    }
    tasks.shutdown().await;
    let records = shared.records.clone();
    let left = tokio::task::spawn_blocking(move || records.flush(STOP_WITHIN)).await.unwrap_or(0);
    if left > 0 {
        tracing::error!(records = left, "records lost: journald did not take them before the end");
    }
    Ok(())
}

async fn accept(
    shared: &Arc<Shared>,
    listening: &mut listen::Listening,
    links: &mut tokio::task::JoinSet<()>,
    stop: impl Future<Output = &'static str>,
) -> &'static str {
    tokio::pin!(stop);
    loop {
        tokio::select! {
            reason = &mut stop => return reason,
            Some(_) = links.join_next() => {}
            accepted = listening.listener.accept(), if links.len() < MAX_CONNECTIONS => match accepted {
                Ok(socket) => {
                    links.spawn(connection::serve(Arc::clone(shared), socket));
                }
                Err(error) => {
                    tracing::error!(%error, "accepting on the evidence socket failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

/// Drains the kernel's events. The facts are in the maps; only an OOM victim must be looked at
/// while it is still there.
async fn follow(shared: Arc<Shared>, mut events: EventStream) {
    let mut polled = match poll::readable(&events) {
        Ok(polled) => polled,
        Err(error) => {
            tracing::error!(%error, "kernel events cannot be polled; OOM victims go without their command line");
            return;
        }
    };
    loop {
        let Ok(mut ready) = polled.readable_mut().await else { return };
        while let Some(event) = events.next_event() {
            tracing::debug!(?event, "kernel event");
            if let What::Oom { tgid } = event.what {
                let theirs = Arc::clone(&shared);
                tokio::task::spawn_blocking(move || theirs.owners.oom(tgid, event.at));
            }
        }
        ready.clear_ready();
    }
}
