//! Real processes, and a kernel side with the facts of the test.

use std::{
    collections::HashMap,
    process::{Child, Command},
    time::Duration,
};

use t3_record::{vocabulary::KernelSource, wire::Hook};
use t3_trace_host::{
    clock::monotonic,
    kernel::{
        Generation, Loss, ServeTuple,
        view::{EventStream, KernelView},
    },
    proc::stat,
};

use super::*;
use crate::{moments::Moment, port_owners::PortOwners};

#[derive(Default)]
struct Recorded(HashMap<u32, ProcessFacts>);

impl KernelView for Recorded {
    fn watch(&mut self, _: &[u16], _: &[u16], _: &[u32]) -> Result<(), String> {
        Ok(())
    }
    fn serve_generation(&self, _: &ServeTuple) -> Generation {
        Generation::UNKNOWN
    }
    fn socket(&self, _: u64) -> Option<SocketFacts> {
        None
    }
    fn serve_end(&self, _: &ServeTuple, _: Generation) -> Option<SocketFacts> {
        None
    }
    fn process(&self, tgid: u32) -> Option<ProcessFacts> {
        self.0.get(&tgid).cloned()
    }
    fn take_events(&mut self) -> Option<EventStream> {
        None
    }
    fn hooks(&self) -> Vec<Hook> {
        Vec::new()
    }
    fn source(&self) -> KernelSource {
        KernelSource::Tracepoint
    }
    fn lost(&self) -> Loss {
        Loss::default()
    }
}

/// The process now.
fn process(
    kernel: &dyn KernelView,
    owners: &PortOwners,
    serve: Option<&SocketFacts>,
    candidates: Candidates<'_>,
    began_at: Nanos,
) -> Option<Process> {
    let processes = Processes { kernel, owners, moment: &Moment::default() };
    super::process(processes, serve, candidates, began_at)
}

struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        let sleeper = Self(Command::new("sleep").arg("60").spawn().unwrap());
        // exec returns to the parent before the new arguments can be read.
        for _ in 0..500 {
            if t3_trace_host::proc::argv(sleeper.0.id()).as_deref() == Some("sleep 60") {
                return sleeper;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("sleep has no arguments");
    }

    fn owner(&self) -> PortOwner {
        PortOwner::of(self.0.id(), None).unwrap()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn wait_for(&self, state: fn(&stat::Stat) -> bool) {
        for _ in 0..500 {
            if stat::read(self.0.id()).is_some_and(|stat| state(&stat)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("timed out waiting for the process state");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn owners() -> PortOwners {
    PortOwners::start(None, Box::new(|_| ()), Box::new(Vec::new)).unwrap()
}

fn only_listener(owner: &PortOwner) -> Candidates<'_> {
    Candidates { holder: None, listener: Some(owner) }
}

fn trace(pid: u32, fate: Fate, ended_at: Nanos, started_boot_ns: Option<u64>) -> ProcessFacts {
    ProcessFacts {
        task: Task { pid, comm: "sleep".to_owned() },
        started_boot_ns,
        fate,
        ended_at: Some(ended_at),
        killer: None,
        signalled_at: None,
        last_signal: None,
        oom_at: None,
    }
}

#[test]
fn a_stopped_process_is_alive_and_halted() {
    let (sleeper, kernel, owners) = (Sleeper::start(), Recorded::default(), owners());
    let owner = sleeper.owner();
    let sample = || process(&kernel, &owners, None, only_listener(&owner), monotonic()).unwrap();
    assert_eq!((sample().fate, sample().halted), (Fate::Alive, None));
    sleeper.signal(rustix::process::Signal::STOP);
    sleeper.wait_for(stat::Stat::is_stopped);
    assert_eq!((sample().fate, sample().halted), (Fate::Alive, Some(Halt::Stopped)));
}

#[test]
fn the_fate_of_a_zombie_is_known_without_kernel_facts() {
    let (sleeper, kernel, owners) = (Sleeper::start(), Recorded::default(), owners());
    let owner = sleeper.owner();
    sleeper.signal(rustix::process::Signal::KILL);
    sleeper.wait_for(stat::Stat::is_over);
    assert_eq!(process(&kernel, &owners, None, only_listener(&owner), 0).unwrap().fate, Fate::Signal(9));
}

#[test]
fn a_gone_process_with_unknown_fate_is_not_reported() {
    let (sleeper, kernel, owners) = (Sleeper::start(), Recorded::default(), owners());
    let owner = sleeper.owner();
    drop(sleeper);
    assert_eq!(process(&kernel, &owners, None, only_listener(&owner), 0), None);
}

#[test]
fn a_process_that_ended_before_a_session_did_not_serve_it() {
    let (sleeper, mut kernel, owners) = (Sleeper::start(), Recorded::default(), owners());
    let (owner, pid, now) = (sleeper.owner(), sleeper.0.id(), monotonic());
    let start = owner.start_ticks * stat::tick_ns();
    let there = |kernel: &Recorded| {
        let processes = Processes { kernel, owners: &owners, moment: &Moment::default() };
        was_there(processes, &owner, now)
    };
    assert!(there(&kernel), "it runs");
    for (ended_at, started, expected) in [
        (now - 1, Some(start), false),
        (now, Some(start), true),
        (now + 1, None, true),
        // Of an earlier process with this pid: the present one runs.
        (now - 1, Some(start - t3_trace_host::clock::SECOND), true),
    ] {
        let ended = trace(pid, Fate::Signal(9), ended_at, started);
        kernel.0.insert(pid, ended.clone());
        assert_eq!(there(&kernel), expected, "{ended:?}");
    }
    kernel.0.clear();
    drop(sleeper);
    assert!(!there(&kernel), "it ended at an unknown time");
}

#[test]
fn facts_of_an_earlier_process_with_the_same_pid_are_ignored() {
    let (sleeper, mut kernel, owners) = (Sleeper::start(), Recorded::default(), owners());
    let (owner, pid, now) = (sleeper.owner(), sleeper.0.id(), monotonic());
    let start = owner.start_ticks * stat::tick_ns();
    for (trace, accepted) in [
        (trace(pid, Fate::Signal(9), now + 1, Some(start + stat::tick_ns() / 2)), true),
        (trace(pid, Fate::Signal(9), now + 1, Some(start - t3_trace_host::clock::SECOND)), false),
        (trace(pid, Fate::Signal(9), now - 1, None), false),
        (trace(pid, Fate::Signal(9), now, None), true),
    ] {
        kernel.0.insert(pid, trace.clone());
        let fate = process(&kernel, &owners, None, only_listener(&owner), now).unwrap().fate;
        assert_eq!(fate == Fate::Signal(9), accepted, "{trace:?}");
    }
}

#[test]
fn the_closer_precedes_the_listener_except_for_a_destroyed_socket() {
    let (worker, listener, kernel, owners) =
        (Sleeper::start(), Sleeper::start(), Recorded::default(), owners());
    let owner = listener.owner();
    let closer = Some(Task { pid: worker.0.id(), comm: "sleep".to_owned() });
    let closed = SocketFacts { closer, ..SocketFacts::default() };
    let pid_of = |serve: &SocketFacts| {
        process(&kernel, &owners, Some(serve), only_listener(&owner), monotonic()).unwrap().task.pid
    };
    assert_eq!(pid_of(&closed), worker.0.id());
    let destroyed = SocketFacts { error: Some((ECONNABORTED, 1)), ..closed };
    assert_eq!(pid_of(&destroyed), listener.0.id());
}

#[test]
fn the_holder_of_a_connection_precedes_the_listener() {
    let (worker, master, kernel, owners) =
        (Sleeper::start(), Sleeper::start(), Recorded::default(), owners());
    let (holder, listener) = (worker.owner(), master.owner());
    let candidates = Candidates { holder: Some(&holder), listener: Some(&listener) };
    worker.signal(rustix::process::Signal::STOP);
    worker.wait_for(stat::Stat::is_stopped);
    let found = process(&kernel, &owners, None, candidates, monotonic()).unwrap();
    assert_eq!((found.task.pid, found.halted), (worker.0.id(), Some(Halt::Stopped)));
}

#[test]
fn a_process_that_inherited_the_connection_is_not_its_closer() {
    let (serve, kernel, owners) = (Sleeper::start(), Recorded::default(), owners());
    let owner = serve.owner();
    let began_at = monotonic();
    std::thread::sleep(Duration::from_millis(50));
    let child = Sleeper::start();
    let task = Task { pid: child.0.id(), comm: "sleep".to_owned() };
    let closed = SocketFacts { closer: Some(task), ..SocketFacts::default() };
    let pid = |began_at| {
        process(&kernel, &owners, Some(&closed), only_listener(&owner), began_at).unwrap().task.pid
    };
    assert_eq!(pid(began_at), serve.0.id());
    assert_eq!(pid(monotonic()), child.0.id(), "it accepted the connection");
}

#[test]
fn a_fatal_signal_counts_before_the_end() {
    let (sleeper, mut kernel, owners) = (Sleeper::start(), Recorded::default(), owners());
    let (owner, pid, now) = (sleeper.owner(), sleeper.0.id(), monotonic());
    let sent = |signal, sender: Option<Task>, oom_at| ProcessFacts {
        fate: Fate::Alive,
        ended_at: None,
        last_signal: Some(SignalFacts { signal, sender, at: now }),
        oom_at,
        ..trace(pid, Fate::Alive, 0, None)
    };
    let systemd = || Some(Task { pid: 1, comm: "systemd".to_owned() });
    for (facts, fate) in [
        (sent(9, systemd(), None), Fate::Signal(9)),
        (sent(9, None, Some(now)), Fate::Oom),
        (sent(9, systemd(), Some(now)), Fate::Signal(9)),
        (sent(15, systemd(), Some(now)), Fate::Alive),
        (sent(10, systemd(), None), Fate::Alive),
    ] {
        kernel.0.insert(pid, facts.clone());
        let found = process(&kernel, &owners, None, only_listener(&owner), now).unwrap();
        assert_eq!(
            (found.fate, found.signalled_at),
            (fate, (fate != Fate::Alive).then_some(now)),
            "{facts:?}"
        );
        assert_eq!(found.stop_request.is_some(), facts.last_signal.unwrap().signal == 15);
    }
}

#[test]
fn an_unrelated_oom_kill_in_the_unit_is_not_reported() {
    let (sleeper, owners) = (Sleeper::start(), owners());
    let now = monotonic();
    let unit = PathBuf::from("/sys/fs/cgroup/unit");
    let owner = PortOwner { cgroup: Some(unit.clone()), ..sleeper.owner() };
    owners.keep_victim(OomVictim { pid: 7, argv: Some("hog".to_owned()), cgroup: Some(unit), at: now });
    let systemd = Task { pid: 1, comm: "systemd".to_owned() };
    let user = Task { pid: 77, comm: "bash".to_owned() };
    let argv = |signal, sender: &Task, at, fate| {
        let last_signal = Some(SignalFacts { signal, sender: Some(sender.clone()), at });
        let killer = (fate == Fate::Signal(signal)).then(|| sender.clone());
        let signalled_at = killer.is_some().then_some(at);
        let facts = ProcessFacts {
            last_signal,
            killer,
            signalled_at,
            ..trace(sleeper.0.id(), fate, at + SECOND, None)
        };
        let processes =
            Processes { kernel: &Recorded::default(), owners: &owners, moment: &Moment::default() };
        victim_argv(processes, &ended(user.clone(), facts), Some(&owner))
    };
    let later = now + SECOND;
    assert_eq!(argv(15, &systemd, later, Fate::Exit(0)).as_deref(), Some("hog"), "systemd stops the unit");
    assert_eq!(argv(15, &systemd, later, Fate::Signal(15)).as_deref(), Some("hog"));
    assert_eq!(argv(11, &user, later, Fate::Signal(11)), None, "it crashed");
    assert_eq!(argv(15, &user, later, Fate::Exit(0)), None, "a user stopped it");
    assert_eq!(argv(15, &systemd, now - 1, Fate::Exit(0)), None, "stopped before");
    assert_eq!(argv(15, &systemd, now + 2 * UNIT_STOP, Fate::Exit(0)), None, "stopped long after");
}

#[test]
fn an_oom_victim_has_its_argv() {
    let (sleeper, mut kernel, owners) = (Sleeper::start(), Recorded::default(), owners());
    let (owner, pid, now) = (sleeper.owner(), sleeper.0.id(), monotonic());
    owners.oom(pid, now);
    let mut killed = trace(pid, Fate::Signal(9), now + 1, None);
    killed.oom_at = Some(now);
    kernel.0.insert(pid, killed);
    let victim = process(&kernel, &owners, None, only_listener(&owner), now).unwrap();
    assert_eq!((victim.fate, victim.victim_argv.as_deref()), (Fate::Oom, Some("sleep 60")));
}

#[test]
fn a_restart_has_the_sender_of_a_recent_request() {
    let systemd = Task { pid: 1, comm: "systemd".to_owned() };
    let now = monotonic();
    let exited = |signal, at, fate| {
        let last_signal =
            Some(t3_trace_host::kernel::SignalFacts { signal, sender: Some(systemd.clone()), at });
        ended(systemd.clone(), ProcessFacts { last_signal, ..trace(1, fate, now, None) }).killer
    };
    let just_now = now - t3_trace_host::clock::SECOND;
    assert_eq!(exited(15, just_now, Fate::Exit(0)), Some(systemd.clone()));
    assert_eq!(
        exited(15, now - 60 * t3_trace_host::clock::SECOND, Fate::Exit(0)),
        None,
        "it exited for another reason"
    );
    assert_eq!(exited(10, just_now, Fate::Exit(0)), None, "SIGUSR1 is not a request to exit");
    assert_eq!(exited(15, just_now, Fate::Signal(11)), None, "it crashed");
}
