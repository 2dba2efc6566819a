//! Process behind serve's end of a session, and its fate. Uses kernel facts and `/proc`; never
//! guesses: a process that is gone without a known fate has no answer.

use std::path::PathBuf;

use t3_record::evidence::{Fate, Halt, Nanos, Process, SocketFacts, StopRequest, Task};
use t3_trace_host::{
    clock::{self, SECOND},
    kernel::{ProcessFacts, SignalFacts},
    proc::stat,
};

use crate::{
    moments::Processes,
    port_owners::{OomVictim, PortOwner},
};

/// Errno of a socket that an administrator destroyed: then the "closer" is not its owner.
const ECONNABORTED: i32 = 103;
/// systemd stops a unit up to this long after an OOM kill in it (`OOMPolicy=stop`).
const UNIT_STOP: Nanos = 10 * SECOND;
/// Time that an OOM victim is kept for.
const VICTIM_AGE: Nanos = 60 * SECOND;
const SIGKILL: i32 = 9;

/// Processes that can be behind serve's end of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Candidates<'a> {
    /// Process that holds the connection.
    pub holder: Option<&'a PortOwner>,
    /// Process that opened the listening socket.
    pub listener: Option<&'a PortOwner>,
}

impl<'a> Candidates<'a> {
    fn with_pid(self, pid: u32) -> Option<&'a PortOwner> {
        [self.holder, self.listener].into_iter().flatten().find(|owner| owner.pid == pid)
    }
}

/// Returns the process behind serve's end: the one that closed the connection, else the one that
/// holds it, else the listener.
pub(crate) fn process(
    processes: Processes<'_>,
    serve: Option<&SocketFacts>,
    candidates: Candidates<'_>,
    began_at: Nanos,
) -> Option<Process> {
    let closer = serve.and_then(|facts| closer(processes, facts, began_at));
    let task = match (closer, candidates.holder.or(candidates.listener)) {
        (Some(closer), _) => closer,
        (None, Some(owner)) => Task { pid: owner.pid, comm: owner.comm.clone() },
        (None, None) => return None,
    };
    let owner = candidates.with_pid(task.pid);
    let facts = processes.recorded(task.pid).filter(|facts| is_same(facts, owner, began_at));
    let mut process = match facts {
        Some(facts) if facts.fate != Fate::Alive => ended(task, facts),
        facts => {
            let mut process = from_proc(task, owner, processes)?;
            if let Some(facts) = facts {
                signalled(&mut process, &facts, processes);
            }
            process
        }
    };
    process.started_at = process.started_at.or(owner.map(|owner| owner.started_at));
    process.is_forwarder = processes.owners.is_forwarder(&process.task.comm, owner);
    process.victim_argv = victim_argv(processes, &process, owner);
    Some(process)
}

/// Process that closed serve's end. Not one that inherited the connection: it started after the
/// session, and closed what another process had accepted.
pub(crate) fn closer(processes: Processes<'_>, serve: &SocketFacts, began_at: Nanos) -> Option<Task> {
    let closer =
        serve.closer.as_ref().filter(|_| serve.error.is_none_or(|(errno, _)| errno != ECONNABORTED))?;
    let recorded = processes.recorded(closer.pid).and_then(|facts| facts.started_boot_ns);
    let started = recorded.or_else(|| Some(processes.stat(closer.pid)?.started_boot_ns()));
    let is_heir = started.is_some_and(|started| clock::from_boottime(started) > began_at + stat::tick_ns());
    (!is_heir).then(|| closer.clone())
}

/// Whether the facts are of the process that served this session: pids are reused.
fn is_same(facts: &ProcessFacts, owner: Option<&PortOwner>, began_at: Nanos) -> bool {
    owner.is_none_or(|owner| is_same_start(facts, owner))
        && facts.ended_at.is_none_or(|ended| ended >= began_at)
}

fn is_same_start(facts: &ProcessFacts, owner: &PortOwner) -> bool {
    let own = owner.start_ticks.saturating_mul(stat::tick_ns());
    facts.started_boot_ns.is_none_or(|started| started.abs_diff(own) <= 2 * stat::tick_ns())
}

/// Whether a process may have served a session that began at a time: it was there then. A process
/// that has ended without a known time was not.
pub(crate) fn was_there(processes: Processes<'_>, owner: &PortOwner, began_at: Nanos) -> bool {
    match processes.recorded(owner.pid).filter(|facts| is_same_start(facts, owner)) {
        Some(ProcessFacts { ended_at: Some(ended_at), .. }) => ended_at >= began_at,
        _ => processes.stat(owner.pid).is_some_and(|stat| stat.start_ticks == owner.start_ticks),
    }
}

/// Signals that request an exit; a process that handles them exits by itself.
const EXIT_REQUESTS: [i32; 3] = [1, 2, 15];
/// Age of a request up to which it explains an exit.
const REQUEST_AGE: Nanos = 10 * SECOND;

/// Sender of the request after which a process exited by itself: a restart, for example.
fn requested_by(facts: &ProcessFacts) -> Option<Task> {
    let signal = facts.last_signal.as_ref().filter(|signal| EXIT_REQUESTS.contains(&signal.signal))?;
    let obeyed =
        matches!(facts.fate, Fate::Exit(_)) && facts.ended_at?.saturating_sub(signal.at) <= REQUEST_AGE;
    obeyed.then(|| signal.sender.clone()).flatten()
}

/// Adds the last signal of a process that has not ended: a request to exit, or its death, however
/// long it takes to release its memory or to write a core dump.
fn signalled(process: &mut Process, facts: &ProcessFacts, processes: Processes<'_>) {
    let Some(signal) = facts.last_signal.clone() else { return };
    let is_fatal = signal.signal == SIGKILL || processes.is_dying(process.task.pid);
    if process.fate == Fate::Alive && is_fatal {
        let by_oom = signal.signal == SIGKILL && signal.sender.is_none() && facts.oom_at.is_some();
        process.fate = if by_oom { Fate::Oom } else { Fate::Signal(signal.signal) };
        process.killer = signal.sender;
        process.signalled_at = Some(signal.at);
    } else if EXIT_REQUESTS.contains(&signal.signal) {
        process.stop_request = Some(request(signal));
    }
}

fn request(signal: SignalFacts) -> StopRequest {
    StopRequest { signal: signal.signal, by: signal.sender, at: signal.at }
}

fn ended(task: Task, facts: ProcessFacts) -> Process {
    // Without a sender: a kill by a process is not made an OOM kill by the mark that hastens it.
    let by_oom = facts.oom_at.is_some() && facts.fate == Fate::Signal(SIGKILL) && facts.killer.is_none();
    let requested_by = requested_by(&facts);
    Process {
        started_at: facts.started_boot_ns.map(clock::from_boottime),
        ended_at: facts.ended_at,
        killer: facts.killer.or(requested_by),
        signalled_at: facts.signalled_at,
        stop_request: facts.last_signal.filter(|signal| EXIT_REQUESTS.contains(&signal.signal)).map(request),
        ..Process::new(task, if by_oom { Fate::Oom } else { facts.fate })
    }
}

fn from_proc(task: Task, owner: Option<&PortOwner>, processes: Processes<'_>) -> Option<Process> {
    let stat = processes.stat(task.pid)?;
    if owner.is_some_and(|owner| owner.start_ticks != stat.start_ticks) {
        return None;
    }
    let fate = stat.fate().unwrap_or(Fate::Alive);
    let halted = match fate {
        Fate::Alive if stat.is_stopped() => Some(Halt::Stopped),
        Fate::Alive if processes.is_frozen(task.pid) => Some(Halt::Frozen),
        _ => None,
    };
    Some(Process {
        started_at: Some(clock::from_boottime(stat.started_boot_ns())),
        halted,
        ..Process::new(task, fate)
    })
}

/// The victim is the process itself, or another one of its unit, whose kill made systemd stop the
/// unit. Other OOM kills in the unit are not the cause of this end.
fn victim_argv(processes: Processes<'_>, process: &Process, owner: Option<&PortOwner>) -> Option<String> {
    let owners = processes.owners;
    let end = process.ended_at.unwrap_or_else(clock::monotonic);
    let victims = || owners.victims_since(end.saturating_sub(VICTIM_AGE));
    if process.fate == Fate::Oom {
        let itself = victims().into_iter().rev().find(|victim| victim.pid == process.task.pid);
        return itself.and_then(|victim| victim.argv).or_else(|| owners.remembered_argv(process.task.pid));
    }
    let stopped_at = stopped_by_systemd(process)?;
    let unit: Option<PathBuf> =
        owner.and_then(|owner| owner.cgroup.clone()).or_else(|| processes.cgroup_of(process.task.pid));
    let in_unit = |victim: &OomVictim| {
        unit.is_some()
            && victim.cgroup == unit
            && victim.at <= stopped_at
            && victim.at.saturating_add(UNIT_STOP) >= stopped_at
    };
    victims().into_iter().rev().find(in_unit).and_then(|victim| victim.argv)
}

/// Time at which systemd asked a process to end, if it did.
fn stopped_by_systemd(process: &Process) -> Option<Nanos> {
    let is_systemd = |task: &Option<Task>| task.as_ref().is_some_and(|task| task.pid == 1);
    let request = process.stop_request.as_ref().filter(|request| is_systemd(&request.by));
    let killed_at = process.signalled_at.filter(|_| is_systemd(&process.killer));
    request.map(|request| request.at).or(killed_at)
}

#[cfg(test)]
mod tests;
