//! Kernel evidence of one session, collected at the time of the query.
//!
//! Queries in work do not block each other: each is a separate task, waits are asynchronous, and
//! pressure and tables of connections are read on blocking threads. Their number is bounded
//! ([`crate::turns`]). A query takes up to [`PRESSURE_TIMEOUT`] and a little more; one about a new
//! serve also takes the search of its listener. dispatch waits 250 ms.
//!
//! When a serve ends, all of its sessions end at one instant. No query reads a file that another
//! one of the same instant has read: state of processes and losses are shared per moment
//! ([`crate::moments`]), pressure per cgroup ([`crate::pressure::Sampler::measured`]).

use std::{path::Path, sync::Arc, time::Duration};

use t3_record::{
    evidence::{Fate, KernelFacts, Memory, Nanos, NetworkEvent, Process, SocketFacts},
    vocabulary::{KernelSource, Side},
};
use t3_trace_host::swap;

use crate::{
    moments::{Moment, Processes},
    peer_process::{self, Candidates},
    port_owners::{self, PortOwner},
    pressure::Reading,
    sessions::{Entry, serve_address},
    state::Shared,
};

/// Wait for kernel events after dispatch noticed the end.
const EVENT_TIMEOUT: Duration = Duration::from_millis(100);
/// Timeout for reading pressure.
const PRESSURE_TIMEOUT: Duration = Duration::from_millis(150);
/// Age of changes of the own network in a reply.
const NETWORK_AGE: u64 = 60 * t3_trace_host::clock::SECOND;
/// Timeout for the search of the process that holds a connection.
const HOLDER_TIMEOUT: Duration = Duration::from_millis(80);
/// Holders whose files are read on the event loop: a serve and a child. A user's serve can have any
/// number of children that inherit its connections.
const FEW_HOLDERS: usize = 4;
/// Age of a session up to which its listener is searched; later, waiting does not help.
const SEARCH: u64 = 2 * t3_trace_host::clock::SECOND;
/// Age of a signal up to which it explains an exit.
const SIGNAL_AGE: u64 = 10 * t3_trace_host::clock::SECOND;
const STEPS: [u64; 7] = [0, 3, 7, 15, 25, 25, 25];
/// After [`STEPS`], for the search of a listener: tables and descriptors are read for it.
const SEARCH_STEPS: [Duration; 2] = [Duration::from_millis(25); 2];

#[derive(Debug, Clone, Default)]
struct Sockets {
    down: Option<SocketFacts>,
    up: Option<SocketFacts>,
    serve: Option<SocketFacts>,
}

impl Sockets {
    fn read(shared: &Shared, entry: &Entry) -> Self {
        let kernel = shared.kernel();
        Self {
            down: entry.session.down.and_then(|leg| kernel.socket(leg.cookie)),
            up: entry.session.up.and_then(|leg| kernel.socket(leg.cookie)),
            serve: entry.serve.and_then(|(tuple, generation)| kernel.serve_end(&tuple, generation)),
        }
    }

    fn have_end(&self) -> bool {
        let ends = |trace: &Option<SocketFacts>| {
            trace.as_ref().is_some_and(|t| {
                t.fin_in.or(t.fin_out).or(t.rst_in).or(t.rst_out).or(t.closed).is_some() || t.error.is_some()
            })
        };
        ends(&self.down) || ends(&self.up)
    }
}

/// Whether kernel events of the end may still be pending.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LateEvents<'a> {
    /// dispatch has noticed the end.
    Possible {
        /// Time ago: the query waited for its turn, and events arrived meanwhile.
        waited: Duration,
    },
    /// All sockets were closed before this moment: no event is pending.
    No(&'a Arc<Moment>),
}

impl LateEvents<'_> {
    /// Intervals of [`STEPS`] that are left, at least the first; `None` if no event is pending.
    fn steps(self) -> Option<impl Iterator<Item = Duration>> {
        let Self::Possible { waited } = self else { return None };
        let mut end = Duration::ZERO;
        let steps = STEPS.map(Duration::from_millis).into_iter().enumerate();
        Some(steps.filter_map(move |(n, step)| {
            end += step;
            (n == 0 || end > waited).then_some(step)
        }))
    }

    /// Time of the query.
    fn asked_at(self) -> Nanos {
        let now = t3_trace_host::clock::monotonic();
        match self {
            Self::Possible { waited } => {
                now.saturating_sub(waited.as_nanos().try_into().unwrap_or(Nanos::MAX))
            }
            Self::No(_) => now,
        }
    }

    /// A moment after the events read until now.
    async fn moment(self, shared: &Shared) -> Arc<Moment> {
        match self {
            Self::Possible { .. } => shared.moments.next().await,
            Self::No(moment) => Arc::clone(moment),
        }
    }
}

/// Collects the evidence. An unregistered session gets the pressure of the host.
pub(crate) async fn gather(shared: &Arc<Shared>, entry: Option<&Entry>, late: LateEvents<'_>) -> KernelFacts {
    let source = shared.kernel().source();
    let asked_at = late.asked_at();
    let Some(entry) = entry else {
        let reading = read(shared, None, asked_at).await;
        let (lost, is_overflowed) = shared.losses(&*late.moment(shared).await);
        let swap_free = swap::free();
        return KernelFacts {
            host: reading.host,
            swap_free,
            lost,
            is_overflowed,
            ..KernelFacts::absent(source)
        };
    };
    let of_serve = async {
        let owner = known_owner(shared, entry, late).await;
        // The pressure window ends at the query, not after the wait for late events.
        let reading = read(shared, owner.as_deref(), asked_at).await;
        (owner, reading)
    };
    let ((owner, reading), sockets) = tokio::join!(of_serve, settled(shared, entry, source, late));
    let owner = owner.or_else(|| self::owner(shared, entry));
    let moment = late.moment(shared).await;
    let (holder, moment) = holder(shared, entry, &sockets, moment, late).await;
    let candidates = Candidates { holder: holder.as_deref(), listener: owner.as_deref() };
    let (process, moment) = fate(shared, entry, &sockets, candidates, moment, late).await;
    let reading = of_process(shared, reading, owner.as_deref(), process.as_ref(), &moment);
    let (delays, steal) = shared.sampler.host_time();
    let (lost, is_overflowed) = shared.losses(&moment);
    KernelFacts {
        source,
        down: sockets.down,
        up: sockets.up,
        serve: sockets.serve,
        pressure: reading.pressure,
        host: reading.host,
        memory: with_own_kill(reading.memory, process.as_ref()),
        swap_free: swap::free(),
        peer: process,
        network: network(shared, entry, &moment),
        delays,
        steal,
        lost,
        is_overflowed,
    }
}

/// Changes of the host's own network on the legs of a session, since its start.
fn network(shared: &Shared, entry: &Entry, moment: &Moment) -> Vec<NetworkEvent> {
    let now = t3_trace_host::clock::monotonic();
    let since = entry.asked_at.unwrap_or(now).saturating_sub(NETWORK_AGE).max(entry.began_at());
    let own = || moment.network_namespace(std::process::id());
    // dispatch may be gone.
    let namespace = match (entry.serve, entry.dispatch_pid) {
        (Some((tuple, _)), _) => tuple.netns.or_else(own),
        (None, Some(pid)) => moment.network_namespace(pid),
        (None, None) => own(),
    };
    let legs = [(Side::Down, entry.session.down), (Side::Up, entry.session.up)];
    shared.network.changes(namespace, legs, since)
}

/// systemd removes a cgroup together with its last process, so the last readable count may lack the
/// kill that ended serve.
fn with_own_kill(memory: Option<Memory>, process: Option<&Process>) -> Option<Memory> {
    let oom = process.is_some_and(|process| process.fate == Fate::Oom);
    memory.map(|memory| Memory {
        oom_kills: memory.oom_kills.map(|count| if oom { count.max(1) } else { count }),
        ..memory
    })
}

/// Fate of the process, with the moment at which it was read. If it was signalled to end and has
/// closed its socket, its exit is imminent: wait for it briefly.
async fn fate(
    shared: &Shared,
    entry: &Entry,
    sockets: &Sockets,
    candidates: Candidates<'_>,
    mut moment: Arc<Moment>,
    late: LateEvents<'_>,
) -> (Option<Process>, Arc<Moment>) {
    let sample = |moment: &Moment| {
        let kernel = shared.kernel();
        let processes = Processes { kernel: &**kernel, owners: &shared.owners, moment };
        let serve = sockets.serve.as_ref();
        let process = peer_process::process(processes, serve, candidates, entry.began_at());
        let signalled_at = process
            .as_ref()
            .and_then(|process| processes.recorded(process.task.pid)?.last_signal)
            .map(|signal| signal.at);
        let signalled =
            signalled_at.is_some_and(|at| t3_trace_host::clock::monotonic().saturating_sub(at) < SIGNAL_AGE);
        (process, signalled)
    };
    let closing = sockets
        .serve
        .as_ref()
        .is_some_and(|trace| trace.fin_out.or(trace.rst_out).or(trace.closed).is_some());
    let (mut process, signalled) = sample(&moment);
    for step in late.steps().filter(|_| closing && signalled).into_iter().flatten() {
        if process.as_ref().is_none_or(|process| process.fate != Fate::Alive) {
            break;
        }
        tokio::time::sleep(step).await;
        moment = late.moment(shared).await;
        process = sample(&moment).0;
    }
    (process, moment)
}

fn owner(shared: &Shared, entry: &Entry) -> Option<Arc<PortOwner>> {
    shared.owners.at(serve_address(&entry.session), entry.began_at())
}

/// Process that holds serve's end, unless the kernel side knows the one that closed it; and the
/// moment at which the process was read.
async fn holder(
    shared: &Arc<Shared>,
    entry: &Entry,
    sockets: &Sockets,
    moment: Arc<Moment>,
    late: LateEvents<'_>,
) -> (Option<Arc<PortOwner>>, Arc<Moment>) {
    let Some(leg) = entry.session.up else { return (None, moment) };
    let began_at = entry.began_at();
    let is_closed = sockets.serve.as_ref().is_some_and(|serve| {
        let kernel = shared.kernel();
        let processes = Processes { kernel: &**kernel, owners: &shared.owners, moment: &moment };
        peer_process::closer(processes, serve, began_at).is_some()
    });
    if is_closed {
        return (None, moment);
    }
    let namespace_of = entry.dispatch_pid.unwrap_or_else(std::process::id);
    let known = shared.owners.known_holders(leg.remote, leg.local, namespace_of);
    let (pids, moment) = match known {
        Some(pids) => (pids, moment),
        None => {
            let state = Arc::clone(shared);
            let search = tokio::task::spawn_blocking(move || {
                state.owners.find_holders(leg.remote, leg.local, namespace_of)
            });
            let found = tokio::time::timeout(HOLDER_TIMEOUT, search).await.ok().and_then(Result::ok);
            (found.unwrap_or_default(), late.moment(shared).await)
        }
    };
    let found = if pids.len() <= FEW_HOLDERS {
        acceptor(shared, &moment, pids, began_at)
    } else {
        let (state, of) = (Arc::clone(shared), Arc::clone(&moment));
        let read = tokio::task::spawn_blocking(move || acceptor(&state, &of, pids, began_at));
        tokio::time::timeout(HOLDER_TIMEOUT, read).await.ok().and_then(Result::ok).flatten()
    };
    if let Some(found) = &found
        && entry.holder.as_ref() != Some(found)
    {
        // A reset leaves no socket to find later.
        shared.sessions().set_holder(&entry.session.conn, Arc::clone(found));
    }
    (found.or_else(|| entry.holder.clone()), moment)
}

/// The process that accepted a connection, among those that hold it. Reads their files.
fn acceptor(shared: &Shared, moment: &Moment, pids: Vec<u32>, began_at: Nanos) -> Option<Arc<PortOwner>> {
    let holders = pids.into_iter().filter_map(|pid| moment.owner(pid, &shared.owners));
    port_owners::acceptor(holders, began_at)
}

/// Pressure and memory of the process behind the connection. Without samples of its cgroup there
/// are none: those of the listener's cgroup would be another program's.
fn of_process(
    shared: &Arc<Shared>,
    reading: Reading,
    owner: Option<&PortOwner>,
    process: Option<&Process>,
    moment: &Moment,
) -> Reading {
    let Some(process) = process else { return reading };
    let processes = Processes { kernel: &**shared.kernel(), owners: &shared.owners, moment };
    let dir = processes.cgroup_of(process.task.pid);
    let of_owner = owner.and_then(|owner| owner.cgroup.as_ref());
    let is_owner = owner.is_some_and(|owner| owner.pid == process.task.pid);
    match dir {
        Some(dir) if Some(&dir) == of_owner => reading,
        None if is_owner => reading,
        None => Reading { host: reading.host, ..Reading::default() },
        Some(dir) => {
            let known = shared.sampler.known(Some(&dir));
            if known.pressure.is_none() && shared.sampler.add(&dir) {
                // For the next close.
                let state = Arc::clone(shared);
                tokio::task::spawn_blocking(move || state.sampler.watch(&dir));
            }
            Reading { host: reading.host, ..known }
        }
    }
}

/// Process behind serve's port. The search starts with the session, so a session that ends
/// immediately may be ahead of it, as one that never opens is: it is registered when it has failed.
/// Until then the port has its earlier owner, which may have ended before the session began.
async fn known_owner(shared: &Arc<Shared>, entry: &Entry, late: LateEvents<'_>) -> Option<Arc<PortOwner>> {
    let young = t3_trace_host::clock::monotonic().saturating_sub(entry.registered_at) < SEARCH;
    // Without a connection to serve there may be no listener.
    let is_connected = entry.session.opened_at.is_some() || entry.session.up.is_some();
    let is_searched = young && is_connected;
    let Some(steps) = late.steps().filter(|_| is_searched) else { return owner(shared, entry) };
    let mut search = None;
    for step in steps.chain(SEARCH_STEPS) {
        if let Some(owner) = owner(shared, entry) {
            let moment = late.moment(shared).await;
            let kernel = shared.kernel();
            let processes = Processes { kernel: &**kernel, owners: &shared.owners, moment: &moment };
            if peer_process::was_there(processes, &owner, entry.began_at()) {
                return Some(owner);
            }
        }
        let search = search.get_or_insert_with(|| {
            let (state, port) = (Arc::clone(shared), serve_address(&entry.session).port());
            let namespace_of = entry.dispatch_pid.unwrap_or_else(std::process::id);
            tokio::task::spawn_blocking(move || state.owners.search(port, namespace_of))
        });
        let is_running = !search.is_finished();
        tokio::select! {
            _ = &mut *search, if is_running => {}
            () = tokio::time::sleep(step) => {}
        }
    }
    owner(shared, entry)
}

/// Reads the sockets again until a leg has an end or the timeout passes.
async fn settled(shared: &Arc<Shared>, entry: &Entry, source: KernelSource, late: LateEvents<'_>) -> Sockets {
    let worth_waiting = source != KernelSource::Off && entry.session.opened_at.is_some();
    let mut sockets = Sockets::read(shared, entry);
    let deadline = tokio::time::Instant::now() + EVENT_TIMEOUT;
    for step in late.steps().filter(|_| worth_waiting).into_iter().flatten() {
        if sockets.have_end() || tokio::time::Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(step).await;
        sockets = Sockets::read(shared, entry);
    }
    sockets
}

/// Pressure at the time of the query. One query reads files, the others of the same instant wait
/// for its result.
async fn read(shared: &Arc<Shared>, owner: Option<&PortOwner>, asked_at: Nanos) -> Reading {
    let cgroup = owner.and_then(|owner| owner.cgroup.as_deref());
    if let Some(reading) = shared.sampler.measured(cgroup, asked_at) {
        return reading;
    }
    let sample = async {
        let turn = shared.sampler.turn(cgroup).lock_owned().await;
        if let Some(reading) = shared.sampler.measured(cgroup, asked_at) {
            return Ok(reading);
        }
        let (state, dir) = (Arc::clone(shared), cgroup.map(Path::to_owned));
        let read = move || {
            let reading = state.sampler.read(dir.as_deref(), asked_at);
            drop(turn);
            reading
        };
        tokio::task::spawn_blocking(read).await
    };
    match tokio::time::timeout(PRESSURE_TIMEOUT, sample).await {
        Ok(Ok(reading)) => reading,
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot read pressure; the record has none");
            Reading::default()
        }
        Err(_) => {
            // Under this much load the pressure matters most.
            tracing::warn!("timed out reading pressure; the record has the last regular sample");
            shared.sampler.known(cgroup)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_waited_for_its_turn_waits_less_for_events() {
        let steps = |waited| {
            let late = LateEvents::Possible { waited: Duration::from_millis(waited) };
            late.steps().unwrap().map(|step| step.as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(steps(0), [0, 3, 7, 15, 25, 25, 25]);
        assert_eq!(steps(30), [0, 25, 25, 25]);
        assert_eq!(steps(50), [0, 25, 25]);
        assert_eq!(steps(100), [0]);
        assert!(LateEvents::No(&Arc::default()).steps().is_none());
    }
}
