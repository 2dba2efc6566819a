//! State shared by all tasks of the daemon.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use t3_journal::{Fields, Outcome, Writer};
use t3_record::{
    evidence::Nanos,
    wire::{FromTrace, JournalState, PortUser, Status, live::Sessions as OpenSessions},
};
use t3_trace_host::{journal_trust::Trust, kernel::view::KernelView, proc::network_namespace};
use tokio::sync::{mpsc, oneshot};

use crate::{
    direct::Direct,
    dispatch_process::DispatchProcess,
    locked::lock,
    moments::{Losses, Moment, Moments},
    options::Options,
    overflow::Overflow,
    own_network::OwnNetwork,
    pick_up::PickUps,
    port_owners::PortOwners,
    pressure::Sampler,
    reconcile::{self, Reconciler},
    sessions::{ConnectionId, Sessions},
    status::DaemonStatus,
    subscribers::Subscribers,
    turns::Turns,
};

#[derive(Debug, Default)]
pub(crate) struct ConnectionState {
    pub(crate) pid: Option<u32>,
    pub(crate) listen: Vec<u16>,
    pub(crate) serve: Vec<u16>,
    /// Users of the serve ports.
    pub(crate) users: Vec<PortUser>,
    /// Network namespace of its process.
    pub(crate) netns: Option<u32>,
    /// Queue of messages to this dispatch; `None` after its connection ended.
    pub(crate) answers: Option<mpsc::Sender<FromTrace>>,
    /// End of the lease for live stats.
    pub(crate) leased_until: Nanos,
}

/// No lock is held across an await.
pub(crate) struct Shared {
    pub(crate) options: Options,
    /// Written only when other ports are watched.
    pub(crate) kernel: Arc<RwLock<Box<dyn KernelView>>>,
    pub(crate) moments: Moments,
    pub(crate) sampler: Arc<Sampler>,
    pub(crate) owners: PortOwners,
    pub(crate) network: Arc<OwnNetwork>,
    /// Connections that dispatch does not carry.
    pub(crate) direct: Direct,
    pub(crate) sessions: Mutex<Sessions>,
    pub(crate) pick_ups: Mutex<PickUps>,
    pub(crate) connections: Mutex<HashMap<ConnectionId, ConnectionState>>,
    pub(crate) next_connection: AtomicU64,
    pub(crate) lost_reported: AtomicU64,
    pub(crate) overflow: Mutex<Overflow>,
    pub(crate) subscribers: Subscribers,
    pub(crate) open_sessions: OpenSessionsCache,
    pub(crate) records: Writer,
    /// `None` if records do not go to the journal.
    pub(crate) reconciler: Option<Arc<Reconciler>>,
    pub(crate) orphan_writers: OrphanWriters,
    pub(crate) turns: Turns,
    pub(crate) stopping: AtomicBool,
    pub(crate) daemon_status: DaemonStatus,
}

/// The last list of open sessions, shared by all subscribers.
#[derive(Default)]
pub(crate) struct OpenSessionsCache {
    pub(crate) kept: tokio::sync::Mutex<Option<(Nanos, Arc<Vec<OpenSessions>>)>>,
}

/// Tasks that write the records of an exited dispatch; the daemon waits for them when it stops.
#[derive(Default)]
pub(crate) struct OrphanWriters(Mutex<tokio::task::JoinSet<()>>);

impl OrphanWriters {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    pub(crate) fn take(&self) -> tokio::task::JoinSet<()> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Ports of all connections without duplicates.
pub(crate) fn union(
    connections: &HashMap<ConnectionId, ConnectionState>,
    pick: fn(&ConnectionState) -> &Vec<u16>,
) -> Vec<u16> {
    let mut ports: Vec<u16> = connections.values().flat_map(|state| pick(state).iter().copied()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

impl Shared {
    pub(crate) fn kernel(&self) -> RwLockReadGuard<'_, Box<dyn KernelView>> {
        self.kernel.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.sessions)
    }

    pub(crate) fn pick_ups(&self) -> MutexGuard<'_, PickUps> {
        lock(&self.pick_ups)
    }

    pub(crate) fn join(&self, pid: Option<u32>, answers: mpsc::Sender<FromTrace>) -> DispatchProcess {
        let id = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        lock(&self.connections)
            .insert(id, ConnectionState { pid, answers: Some(answers), ..ConnectionState::default() });
        self.pick_ups().connected(id, pid);
        DispatchProcess::new(id, pid)
    }

    /// Removes a closed connection of dispatch; returns the number of its sessions. The ports of
    /// the last connection stay watched: dispatch will reconnect.
    pub(crate) fn leave(&self, connection: ConnectionId) -> usize {
        let mut connections = lock(&self.connections);
        if connections.len() > 1 {
            connections.remove(&connection);
        } else if let Some(state) = connections.get_mut(&connection) {
            state.pid = None;
            state.answers = None;
        }
        drop(connections);
        let now = t3_trace_host::clock::monotonic();
        self.pick_ups().disconnected(connection, now);
        self.sessions().detach(connection, now)
    }

    /// Sends a message to every connected dispatch; one that does not read misses it.
    pub(crate) fn send_to_dispatch(&self, message: &FromTrace) {
        for state in lock(&self.connections).values() {
            if let Some(answers) = &state.answers {
                let _ = answers.try_send(message.clone());
            }
        }
    }

    /// Whether the daemon is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn is_connected(&self, pid: Option<u32>) -> bool {
        lock(&self.connections).values().any(|connection| connection.pid.is_some() && connection.pid == pid)
    }

    pub(crate) fn watch(
        &self,
        connection: ConnectionId,
        pid: Option<u32>,
        listen: Vec<u16>,
        serve: Vec<u16>,
        users: Vec<PortUser>,
    ) {
        self.pick_ups().listens(connection, &listen);
        let mut connections = lock(&self.connections);
        // The ports of ended connections are replaced by those of their successor.
        connections.retain(|id, state| *id == connection || state.pid.is_some());
        let state = connections.entry(connection).or_default();
        (state.pid, state.listen, state.serve, state.users) = (pid, listen, serve, users);
        state.netns = pid.and_then(network_namespace);
        drop(connections);
        self.apply_watch();
    }

    /// Watches the ports of all connections, and those of the configuration.
    pub(crate) fn apply_watch(&self) {
        let connections = lock(&self.connections);
        let (listen, serve) =
            (union(&connections, |state| &state.listen), union(&connections, |state| &state.serve));
        let of = |state: &ConnectionState| {
            state.pid.map(|pid| state.serve.iter().map(move |port| (*port, pid)).collect::<Vec<_>>())
        };
        let own = std::process::id();
        // Of the configured ports and units.
        let with_own = self.direct.is_configured().then_some(own);
        let pids = connections.values().filter_map(|state| state.pid).chain(with_own);
        let namespaces: Option<Vec<u32>> = pids.map(network_namespace).collect();
        // Of a dispatch in a private pid namespace it is not known.
        let namespaces = match namespaces {
            Some(known) if connections.values().all(|state| state.pid.is_some()) => known,
            _ => {
                tracing::warn!("the network namespace of dispatch is not known: all are watched");
                Vec::new()
            }
        };
        let configured = self.direct.ports().map(|port| (port, own));
        let wanted = configured.chain(connections.values().filter_map(of).flatten());
        let wanted: Vec<(u16, u32)> = wanted.collect();
        self.direct.set_users(connections.values().flat_map(|state| {
            state.netns.into_iter().flat_map(|netns| state.users.iter().map(move |of| (netns, of)))
        }));
        drop(connections);
        self.owners.want(wanted);
        let watched = {
            let mut kernel = self.kernel.write().unwrap_or_else(PoisonError::into_inner);
            let watched = kernel.watch(&listen, &serve, &namespaces);
            watched.and_then(|()| self.direct.watch(&mut **kernel, &serve))
        };
        if let Err(error) = watched {
            tracing::error!(
                error,
                "cannot watch new ports in the kernel; closes on them lack kernel evidence"
            );
        }
    }

    /// Reads the losses of the kernel side. Each call is a sample of the tables' use.
    pub(crate) fn sample_losses(&self) -> Losses {
        let kernel = self.kernel();
        let lost = kernel.lost();
        let load = kernel.table_load(&lost);
        drop(kernel);
        let is_overflowed = lock(&self.overflow).sample(t3_trace_host::clock::monotonic(), load);
        Losses { total: lost.total(), is_overflowed }
    }

    /// Events lost up to a moment that no earlier call returned, and whether the tables of the
    /// kernel side had too little room in the minute before it.
    pub(crate) fn losses(&self, moment: &Moment) -> (u64, bool) {
        let losses = moment.losses(|| self.sample_losses());
        let reported = self.lost_reported.fetch_max(losses.total, Ordering::Relaxed);
        (losses.total.saturating_sub(reported), losses.is_overflowed)
    }

    pub(crate) fn status(&self) -> FromTrace {
        let kernel = self.kernel();
        let lost = kernel.lost();
        let (source, hooks) = (kernel.source(), kernel.hooks());
        let inventory = self.daemon_status.inventory(|| kernel.inventory());
        let direct = self.direct.state(&**kernel);
        drop(kernel);
        let connections = lock(&self.connections);
        let dispatch = connections.values().any(|connection| connection.pid.is_some());
        let (listen, serve) =
            (union(&connections, |state| &state.listen), union(&connections, |state| &state.serve));
        drop(connections);
        let (sessions, counts) = {
            let sessions = self.sessions();
            (sessions.len() as u64, sessions.open_counts())
        };
        FromTrace::Status(Box::new(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: Some(source),
            hooks,
            sessions,
            open: Some(counts.open),
            kept: Some(counts.kept),
            waiting: Some(counts.waiting),
            subscribers: self.subscribers.len() as u64,
            dispatch,
            lost: lost.total(),
            map_full: lost.map_full(),
            uptime_s: Some(self.daemon_status.uptime_s()),
            listen,
            serve,
            tables: inventory.tables,
            events: inventory.events,
            missing: inventory.missing,
            clock_moved_ms: Some(self.daemon_status.clock_moved_ms()),
            direct,
            journal: self.reconciler.as_ref().map(|reconciler| reconciler.counts()),
        }))
    }

    pub(crate) fn summary(&self) -> String {
        let source = self.kernel().source();
        format!("kernel={source} sessions={} subscribers={}", self.sessions().len(), self.subscribers.len())
    }
}

impl reconcile::Daemon for Shared {
    fn trust(&self) -> Trust {
        Trust::in_user(&self.options.dispatch_user)
    }

    fn is_registered(&self, conn: &str) -> bool {
        self.sessions().contains(conn) || self.pick_ups().is_ended(conn)
    }

    fn is_awaited(&self, pid: u32) -> bool {
        self.pick_ups().is_pid_awaited(pid, t3_trace_host::clock::monotonic())
    }

    fn write(&self, fields: Fields) -> oneshot::Receiver<Outcome> {
        self.records.write(fields)
    }

    fn publish(&self, message: FromTrace) {
        self.subscribers.publish(message);
    }

    fn publish_counts(&self, counts: JournalState) {
        self.send_to_dispatch(&FromTrace::Journal(counts));
        self.subscribers.publish(FromTrace::Journal(counts));
    }
}
