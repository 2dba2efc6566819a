//! What the kernel side knows of one session, gathered at the moment of the question.
//!
//! Never holds a session up for another: each question is a task of its own, waits are
//! asynchronous, and reading files happens on threads for that. Never takes longer than
//! [`PATIENCE`] and a little: dispatch waits 250 ms.

use std::{sync::Arc, time::Duration};

use t3_record::{
    evidence::{Fate, KernelFacts, Memory, Process, SocketFacts},
    vocabulary::KernelSource,
};

use crate::{peer_process, port_owners::PortOwner, pressure::Reading, sessions::Entry, state::Shared};

/// How long the kernel's own events may come after dispatch noticed the end.
const LATE: Duration = Duration::from_millis(100);
/// How long reading pressure may take.
const PATIENCE: Duration = Duration::from_millis(150);
/// A listener that was not found in this time will not be found by waiting.
const SEARCH: u64 = 2 * t3_trace_host::clock::SECOND;
/// A signal longer ago than this is not why a process ends now.
const DYING: u64 = 10 * t3_trace_host::clock::SECOND;
const STEPS: [u64; 7] = [0, 3, 7, 15, 25, 25, 25];

/// The sockets of a session.
#[derive(Debug, Clone, Default)]
struct Sockets {
    down: Option<SocketFacts>,
    up: Option<SocketFacts>,
    serve: Option<SocketFacts>,
}

impl Sockets {
    fn look(shared: &Shared, entry: &Entry) -> Self {
        let kernel = shared.kernel();
        Self {
            down: entry.session.down.and_then(|leg| kernel.socket(leg.cookie)),
            up: entry.session.up.and_then(|leg| kernel.socket(leg.cookie)),
            serve: entry.serve.and_then(|(tuple, generation)| kernel.serve_end(&tuple, generation)),
        }
    }

    fn tell_an_end(&self) -> bool {
        let ends = |trace: &Option<SocketFacts>| {
            trace.as_ref().is_some_and(|t| {
                t.fin_in.or(t.fin_out).or(t.rst_in).or(t.rst_out).or(t.closed).is_some() || t.error.is_some()
            })
        };
        ends(&self.down) || ends(&self.up)
    }
}

/// May the kernel still be about to tell of the end?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LateEvents {
    /// dispatch has only just noticed.
    Possible,
    /// All sockets are closed: what is not there will not come.
    No,
}

/// Answers a question. A session that nobody registered still gets the machine's pressure.
pub(crate) async fn gather(shared: &Arc<Shared>, entry: Option<&Entry>, late: LateEvents) -> KernelFacts {
    let source = shared.kernel().source();
    let Some(entry) = entry else {
        let reading = read(shared, None).await;
        return KernelFacts { host: reading.host, lost: shared.lost_delta(), ..KernelFacts::absent(source) };
    };
    let owner = known_owner(shared, entry, late).await;
    // The window of pressure ends at the question, not after the wait for late events.
    let (reading, sockets) =
        tokio::join!(read(shared, owner.as_deref()), settled(shared, entry, source, late));
    let owner = owner.or_else(|| self::owner(shared, entry));
    let process = fate(shared, entry, &sockets, owner.as_deref(), late).await;
    KernelFacts {
        source,
        down: sockets.down,
        up: sockets.up,
        serve: sockets.serve,
        pressure: reading.pressure,
        host: reading.host,
        memory: with_own_kill(reading.memory, process.as_ref()),
        peer: process,
        lost: shared.lost_delta(),
    }
}

/// systemd removes a cgroup together with its last process, so the last count that could be read
/// may lack the kill that ended serve.
fn with_own_kill(memory: Option<Memory>, process: Option<&Process>) -> Option<Memory> {
    let oom = process.is_some_and(|process| process.fate == Fate::Oom);
    memory.map(|memory| Memory {
        oom_kills: memory.oom_kills.map(|count| if oom { count.max(1) } else { count }),
        ..memory
    })
}

/// What became of the process. One that has been told to end and has closed its socket is about to:
/// its exit is waited for a moment.
async fn fate(
    shared: &Shared,
    entry: &Entry,
    sockets: &Sockets,
    owner: Option<&PortOwner>,
    late: LateEvents,
) -> Option<Process> {
    let look = || {
        let kernel = shared.kernel();
        let process =
            peer_process::process(&**kernel, &shared.owners, sockets.serve.as_ref(), owner, entry.began_at());
        let told = process
            .as_ref()
            .and_then(|process| kernel.process(process.task.pid)?.last_signal)
            .map(|signal| signal.at);
        let told = told.is_some_and(|at| t3_trace_host::clock::monotonic().saturating_sub(at) < DYING);
        (process, told)
    };
    let closing = sockets
        .serve
        .as_ref()
        .is_some_and(|trace| trace.fin_out.or(trace.rst_out).or(trace.closed).is_some());
    let (mut process, told) = look();
    if late == LateEvents::Possible && closing && told {
        for step in STEPS {
            if process.as_ref().is_none_or(|process| process.fate != Fate::Alive) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(step)).await;
            process = look().0;
        }
    }
    process
}

fn owner(shared: &Shared, entry: &Entry) -> Option<Arc<PortOwner>> {
    shared.owners.at(entry.session.serve_port, entry.began_at())
}

/// The process behind serve's port. The search for it begins with the session, so a session that
/// ended at once may be ahead of it.
async fn known_owner(shared: &Shared, entry: &Entry, late: LateEvents) -> Option<Arc<PortOwner>> {
    let young = t3_trace_host::clock::monotonic().saturating_sub(entry.registered_at) < SEARCH;
    if late == LateEvents::Possible && young && entry.session.opened_at.is_some() {
        for step in STEPS {
            if let Some(owner) = owner(shared, entry) {
                return Some(owner);
            }
            tokio::time::sleep(Duration::from_millis(step)).await;
        }
    }
    owner(shared, entry)
}

/// Looks again for a while as long as neither leg shows an end.
async fn settled(shared: &Arc<Shared>, entry: &Entry, source: KernelSource, late: LateEvents) -> Sockets {
    let worth_waiting =
        late == LateEvents::Possible && source != KernelSource::Off && entry.session.opened_at.is_some();
    let mut sockets = Sockets::default();
    let deadline = tokio::time::Instant::now() + LATE;
    for step in STEPS {
        tokio::time::sleep(Duration::from_millis(step)).await;
        sockets = Sockets::look(shared, entry);
        if sockets.tell_an_end() || !worth_waiting || tokio::time::Instant::now() >= deadline {
            break;
        }
    }
    sockets
}

async fn read(shared: &Arc<Shared>, owner: Option<&PortOwner>) -> Reading {
    let cgroup = owner.and_then(|owner| owner.cgroup.clone());
    let (theirs, of) = (Arc::clone(shared), cgroup.clone());
    let reading = tokio::task::spawn_blocking(move || theirs.sampler.read(of.as_deref()));
    match tokio::time::timeout(PATIENCE, reading).await {
        Ok(Ok(reading)) => reading,
        Ok(Err(error)) => {
            tracing::error!(%error, "reading pressure failed; the record goes without");
            Reading::default()
        }
        Err(_) => {
            // A machine that is this slow is the one whose pressure is wanted most.
            tracing::warn!(
                "pressure could not be read in {PATIENCE:?}; the record has the last regular sample"
            );
            shared.sampler.known(cgroup.as_deref())
        }
    }
}
