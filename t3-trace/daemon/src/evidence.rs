//! Kernel evidence of one session, collected at the time of the query.
//!
//! Queries in work do not block each other: each is a separate task, waits are asynchronous, and
//! files are read on blocking threads. Their number is bounded ([`crate::turns`]). A query takes up
//! to [`PRESSURE_TIMEOUT`] and a little more; dispatch waits 250 ms.

use std::{sync::Arc, time::Duration};

use t3_record::{
    evidence::{Fate, KernelFacts, Memory, NetworkEvent, Process, SocketFacts},
    vocabulary::{KernelSource, Side},
};
use t3_trace_host::proc::network_namespace;

use crate::{
    peer_process::{self, Candidates},
    port_owners::PortOwner,
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
/// Age of a session up to which its listener is searched; later, waiting does not help.
const SEARCH: u64 = 2 * t3_trace_host::clock::SECOND;
/// Age of a signal up to which it explains an exit.
const SIGNAL_AGE: u64 = 10 * t3_trace_host::clock::SECOND;
const STEPS: [u64; 7] = [0, 3, 7, 15, 25, 25, 25];

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LateEvents {
    /// dispatch has noticed the end.
    Possible {
        /// Time ago: the query waited for its turn, and events arrived meanwhile.
        waited: Duration,
    },
    /// All sockets are closed: no event is pending.
    No,
}

impl LateEvents {
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
}

/// Collects the evidence. An unregistered session gets the pressure of the host.
pub(crate) async fn gather(shared: &Arc<Shared>, entry: Option<&Entry>, late: LateEvents) -> KernelFacts {
    let source = shared.kernel().source();
    let Some(entry) = entry else {
        let reading = read(shared, None).await;
        return KernelFacts {
            host: reading.host,
            lost: shared.lost_delta(),
            is_overflowed: shared.is_overflowed(),
            ..KernelFacts::absent(source)
        };
    };
    let owner = known_owner(shared, entry, late).await;
    // The pressure window ends at the query, not after the wait for late events.
    let (reading, sockets) =
        tokio::join!(read(shared, owner.as_deref()), settled(shared, entry, source, late));
    let owner = owner.or_else(|| self::owner(shared, entry));
    let holder = holder(shared, entry, &sockets).await;
    let candidates = Candidates { holder: holder.as_deref(), listener: owner.as_deref() };
    let process = fate(shared, entry, &sockets, candidates, late).await;
    let reading = of_process(shared, reading, owner.as_deref(), process.as_ref());
    let (delays, steal) = shared.sampler.host_time();
    KernelFacts {
        source,
        down: sockets.down,
        up: sockets.up,
        serve: sockets.serve,
        pressure: reading.pressure,
        host: reading.host,
        memory: with_own_kill(reading.memory, process.as_ref()),
        peer: process,
        network: network(shared, entry),
        delays,
        steal,
        lost: shared.lost_delta(),
        is_overflowed: shared.is_overflowed(),
    }
}

/// Changes of the host's own network on the legs of a session, since its start.
fn network(shared: &Shared, entry: &Entry) -> Vec<NetworkEvent> {
    let now = t3_trace_host::clock::monotonic();
    let since = entry.asked_at.unwrap_or(now).saturating_sub(NETWORK_AGE).max(entry.began_at());
    let own = || network_namespace(std::process::id());
    // dispatch may be gone.
    let namespace = match (entry.serve, entry.dispatch_pid) {
        (Some((tuple, _)), _) => tuple.netns.or_else(own),
        (None, Some(pid)) => network_namespace(pid),
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

/// Fate of the process. If it was signalled to end and has closed its socket, its exit is imminent:
/// wait for it briefly.
async fn fate(
    shared: &Shared,
    entry: &Entry,
    sockets: &Sockets,
    candidates: Candidates<'_>,
    late: LateEvents,
) -> Option<Process> {
    let sample = || {
        let kernel = shared.kernel();
        let serve = sockets.serve.as_ref();
        let process = peer_process::process(&**kernel, &shared.owners, serve, candidates, entry.began_at());
        let signalled_at = process
            .as_ref()
            .and_then(|process| kernel.process(process.task.pid)?.last_signal)
            .map(|signal| signal.at);
        let signalled =
            signalled_at.is_some_and(|at| t3_trace_host::clock::monotonic().saturating_sub(at) < SIGNAL_AGE);
        (process, signalled)
    };
    let closing = sockets
        .serve
        .as_ref()
        .is_some_and(|trace| trace.fin_out.or(trace.rst_out).or(trace.closed).is_some());
    let (mut process, signalled) = sample();
    for step in late.steps().filter(|_| closing && signalled).into_iter().flatten() {
        if process.as_ref().is_none_or(|process| process.fate != Fate::Alive) {
            break;
        }
        tokio::time::sleep(step).await;
        process = sample().0;
    }
    process
}

fn owner(shared: &Shared, entry: &Entry) -> Option<Arc<PortOwner>> {
    shared.owners.at(serve_address(&entry.session), entry.began_at())
}

/// Process that holds serve's end, unless the kernel side knows the one that closed it.
async fn holder(shared: &Arc<Shared>, entry: &Entry, sockets: &Sockets) -> Option<Arc<PortOwner>> {
    let leg = entry.session.up?;
    let began_at = entry.began_at();
    let is_closed = sockets
        .serve
        .as_ref()
        .is_some_and(|serve| peer_process::closer(&**shared.kernel(), serve, began_at).is_some());
    if is_closed {
        return None;
    }
    let namespace_of = entry.dispatch_pid.unwrap_or_else(std::process::id);
    let state = Arc::clone(shared);
    let search = tokio::task::spawn_blocking(move || {
        state.owners.of_connection(leg.remote, leg.local, namespace_of, began_at)
    });
    let found = tokio::time::timeout(HOLDER_TIMEOUT, search).await.ok().and_then(Result::ok).flatten();
    if let Some(found) = &found {
        // A reset leaves no socket to find later.
        shared.sessions().set_holder(&entry.session.conn, Arc::clone(found));
    }
    found.or_else(|| entry.holder.clone())
}

/// Pressure and memory of the process behind the connection. Without samples of its cgroup there
/// are none: those of the listener's cgroup would be another program's.
fn of_process(
    shared: &Arc<Shared>,
    reading: Reading,
    owner: Option<&PortOwner>,
    process: Option<&Process>,
) -> Reading {
    let Some(process) = process else { return reading };
    let dir = shared.owners.cgroup_of(process.task.pid);
    let of_owner = owner.and_then(|owner| owner.cgroup.as_ref());
    let is_owner = owner.is_some_and(|owner| owner.pid == process.task.pid);
    match dir {
        Some(dir) if Some(&dir) == of_owner => reading,
        None if is_owner => reading,
        None => Reading { host: reading.host, ..Reading::default() },
        Some(dir) => {
            let known = shared.sampler.known(Some(&dir));
            if known.pressure.is_none() {
                // For the next close.
                let state = Arc::clone(shared);
                tokio::task::spawn_blocking(move || state.sampler.watch(&dir));
            }
            Reading { host: reading.host, ..known }
        }
    }
}

/// Process behind serve's port. The search starts with the session, so a session that ends
/// immediately may be ahead of it.
async fn known_owner(shared: &Shared, entry: &Entry, late: LateEvents) -> Option<Arc<PortOwner>> {
    let young = t3_trace_host::clock::monotonic().saturating_sub(entry.registered_at) < SEARCH;
    let is_searched = young && entry.session.opened_at.is_some();
    for step in late.steps().filter(|_| is_searched).into_iter().flatten() {
        if let Some(owner) = owner(shared, entry) {
            return Some(owner);
        }
        tokio::time::sleep(step).await;
    }
    owner(shared, entry)
}

/// Reads the sockets again until a leg has an end or the timeout passes.
async fn settled(shared: &Arc<Shared>, entry: &Entry, source: KernelSource, late: LateEvents) -> Sockets {
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

async fn read(shared: &Arc<Shared>, owner: Option<&PortOwner>) -> Reading {
    let cgroup = owner.and_then(|owner| owner.cgroup.clone());
    let (state, dir) = (Arc::clone(shared), cgroup.clone());
    let reading = tokio::task::spawn_blocking(move || state.sampler.read(dir.as_deref()));
    match tokio::time::timeout(PRESSURE_TIMEOUT, reading).await {
        Ok(Ok(reading)) => reading,
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot read pressure; the record has none");
            Reading::default()
        }
        Err(_) => {
            // Under this much load the pressure matters most.
            tracing::warn!("timed out reading pressure; the record has the last regular sample");
            shared.sampler.known(cgroup.as_deref())
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
        assert!(LateEvents::No.steps().is_none());
    }
}
