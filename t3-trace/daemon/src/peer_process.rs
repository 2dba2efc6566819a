//! Process behind serve's end of a session, and its fate. Uses kernel facts and `/proc`; never
//! guesses: a process that is gone without a known fate has no answer.

use t3_record::evidence::{Fate, Halt, Nanos, Process, SocketFacts, StopRequest, Task};
use t3_trace_host::{
    cgroup,
    clock::SECOND,
    kernel::{ProcessFacts, SignalFacts, view::KernelView},
    proc::{stat, status},
};

use crate::port_owners::{OomVictim, PortOwner, PortOwners};

/// Errno of a socket that an administrator destroyed: then the "closer" is not its owner.
const ECONNABORTED: i32 = 103;
/// An OOM kill in the same cgroup up to this long before the exit of a process is its cause (the
/// unit is stopped because of it).
const OOM_BEFORE_END: Nanos = 10 * SECOND;

/// Returns the process behind serve's end.
pub fn process(
    kernel: &dyn KernelView,
    owners: &PortOwners,
    serve: Option<&SocketFacts>,
    owner: Option<&PortOwner>,
    began_at: Nanos,
) -> Option<Process> {
    let closer = serve.filter(|trace| trace.error.is_none_or(|(errno, _)| errno != ECONNABORTED));
    let closer = closer.and_then(|trace| trace.closer.as_ref());
    let task = match (closer, owner) {
        (Some(closer), _) => closer.clone(),
        (None, Some(owner)) => Task { pid: owner.pid, comm: owner.comm.clone() },
        (None, None) => return None,
    };
    let owner = owner.filter(|owner| owner.pid == task.pid);
    let trace = kernel.process(task.pid).filter(|trace| is_same(trace, owner, began_at));
    let mut process = match trace {
        Some(trace) if trace.fate != Fate::Alive => ended(task, trace),
        trace => {
            let mut process = from_proc(task, owner)?;
            if let Some(signal) = trace.and_then(|trace| trace.last_signal) {
                signalled(&mut process, signal);
            }
            process
        }
    };
    if process.fate != Fate::Alive {
        process.victim_argv = victim_argv(owners, &process, owner);
    }
    Some(process)
}

/// Whether the facts are of the process that served this session: pids are reused.
fn is_same(trace: &ProcessFacts, owner: Option<&PortOwner>, began_at: Nanos) -> bool {
    let same_start = match (trace.started_boot_ns, owner) {
        (Some(started), Some(owner)) => {
            started.abs_diff(owner.start_ticks.saturating_mul(stat::tick_ns())) <= 2 * stat::tick_ns()
        }
        _ => true,
    };
    same_start && trace.ended_at.is_none_or(|ended| ended >= began_at)
}

/// Signals that request an exit; a process that handles them exits by itself.
const EXIT_REQUESTS: [i32; 3] = [1, 2, 15];
/// Age of a request up to which it explains an exit.
const REQUEST_AGE: Nanos = 10 * SECOND;

/// Sender of the request after which a process exited by itself: a restart, for example.
fn requested_by(trace: &ProcessFacts) -> Option<Task> {
    let signal = trace.last_signal.as_ref().filter(|signal| EXIT_REQUESTS.contains(&signal.signal))?;
    let obeyed =
        matches!(trace.fate, Fate::Exit(_)) && trace.ended_at?.saturating_sub(signal.at) <= REQUEST_AGE;
    obeyed.then(|| signal.sender.clone()).flatten()
}

/// Adds the last signal of a process that has not ended: a request to exit, or its death, however
/// long it takes to release its memory or to write a core dump.
fn signalled(process: &mut Process, signal: SignalFacts) {
    const SIGKILL: i32 = 9;
    if EXIT_REQUESTS.contains(&signal.signal) {
        process.stop_request = Some(request(signal));
    } else if process.fate == Fate::Alive
        && (signal.signal == SIGKILL || status::is_dumping_core(process.task.pid))
    {
        process.fate = Fate::Signal(signal.signal);
        process.killer = signal.sender;
        process.signalled_at = Some(signal.at);
    }
}

fn request(signal: SignalFacts) -> StopRequest {
    StopRequest { signal: signal.signal, by: signal.sender, at: signal.at }
}

fn ended(task: Task, trace: ProcessFacts) -> Process {
    let oom = trace.oom_at.is_some() && trace.fate == Fate::Signal(9);
    let requested_by = requested_by(&trace);
    Process {
        task,
        fate: if oom { Fate::Oom } else { trace.fate },
        ended_at: trace.ended_at,
        killer: trace.killer.or(requested_by),
        signalled_at: trace.signalled_at,
        stop_request: trace.last_signal.filter(|signal| EXIT_REQUESTS.contains(&signal.signal)).map(request),
        is_forwarder: false,
        victim_argv: None,
        halted: None,
    }
}

fn from_proc(task: Task, owner: Option<&PortOwner>) -> Option<Process> {
    let stat = stat::read(task.pid)?;
    if owner.is_some_and(|owner| owner.start_ticks != stat.start_ticks) {
        return None;
    }
    let frozen = || owner.and_then(|owner| owner.cgroup.as_deref()).is_some_and(cgroup::is_frozen);
    let fate = stat.fate().unwrap_or(Fate::Alive);
    let halted = match fate {
        Fate::Alive if stat.is_stopped() => Some(Halt::Stopped),
        Fate::Alive if frozen() => Some(Halt::Frozen),
        _ => None,
    };
    Some(Process {
        task,
        fate,
        ended_at: None,
        killer: None,
        signalled_at: None,
        stop_request: None,
        is_forwarder: false,
        victim_argv: None,
        halted,
    })
}

/// The victim is the process itself, or another one in the unit whose kill stopped the unit.
fn victim_argv(owners: &PortOwners, process: &Process, owner: Option<&PortOwner>) -> Option<String> {
    let in_unit = |victim: &OomVictim| {
        let unit = owner.and_then(|owner| owner.cgroup.as_ref());
        unit.is_some()
            && victim.cgroup.as_ref() == unit
            && process.ended_at.is_some_and(|end| victim.at <= end && victim.at + OOM_BEFORE_END >= end)
    };
    let since =
        process.ended_at.unwrap_or_else(t3_trace_host::clock::monotonic).saturating_sub(6 * OOM_BEFORE_END);
    let victims = owners.victims_since(since);
    let itself = victims.iter().rev().find(|victim| victim.pid == process.task.pid);
    let victim = itself.or_else(|| victims.iter().rev().find(|victim| in_unit(victim)));
    victim
        .and_then(|victim| victim.argv.clone())
        .or_else(|| (process.fate == Fate::Oom).then(|| owners.remembered_argv(process.task.pid)).flatten())
}

#[cfg(test)]
mod tests;
