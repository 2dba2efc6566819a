//! Who serves a port: the process that listens on it, its cgroup, and the argv of what runs beside
//! it.
//!
//! Works on a thread of its own, because a walk through all descriptors of a machine takes long and
//! reading a command line may wait for a lock. Remembers earlier listeners of a port, so that a
//! session is never ascribed to a process that was started after it.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use t3_record::evidence::Nanos;
use t3_trace_host::{
    cgroup, clock,
    proc::{self, net, stat},
};

const EVERY: Duration = Duration::from_secs(2);
/// A port is not looked for out of turn more often than this.
const AGAIN: Duration = Duration::from_millis(250);
const ARGV_EVERY: Duration = Duration::from_secs(5);
/// How many listeners of one port are remembered.
const HISTORY: usize = 8;
/// How many processes of one cgroup have their argv kept.
const MEMBERS: usize = 1024;
/// How many OOM victims are remembered.
const VICTIMS: usize = 64;

/// A process behind a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// Thread group id.
    pub pid: u32,
    /// Its comm when it was found.
    pub comm: String,
    /// Field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
    /// When it was started, by the monotonic clock.
    pub started_at: Nanos,
    /// The directory of its cgroup (version 2).
    pub cgroup: Option<PathBuf>,
}

impl PortOwner {
    /// Looks a process up.
    #[must_use]
    pub fn of(pid: u32, cgroups: Option<&Path>) -> Option<Self> {
        let stat = stat::read(pid)?;
        Some(Self {
            pid,
            start_ticks: stat.start_ticks,
            started_at: clock::from_boottime(stat.started_boot_ns()),
            comm: stat.comm,
            cgroup: cgroups.and_then(|mount| cgroup::dir_of(mount, pid)),
        })
    }

    /// The same process still exists (perhaps as a zombie).
    #[must_use]
    pub fn exists(&self) -> bool {
        stat::read(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks)
    }
}

/// A process that the OOM killer chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomVictim {
    /// Thread group id.
    pub pid: u32,
    /// Its command line, if it could still be read.
    pub argv: Option<String>,
    /// The directory of its cgroup.
    pub cgroup: Option<PathBuf>,
    /// When it was chosen.
    pub at: Nanos,
}

#[derive(Debug, Default)]
struct State {
    /// Ports to look for, and a process in whose network namespace they are.
    wanted: BTreeMap<u16, u32>,
    /// Who listened on a port, oldest first, and on which socket.
    listeners: HashMap<u16, VecDeque<(u64, Arc<PortOwner>)>>,
    /// When a port was last looked for out of turn.
    sought: HashMap<u16, Instant>,
    argv: HashMap<u32, String>,
    victims: VecDeque<OomVictim>,
    poked: bool,
    stopping: bool,
}

type Found = Box<dyn Fn(&PortOwner) + Send>;

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    cgroups: Option<PathBuf>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle on the looking thread, which ends with it.
#[derive(Debug)]
pub struct PortOwners {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl PortOwners {
    /// Starts the thread. `cgroups` is where version 2 is mounted; `found` hears of each new
    /// listener.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(cgroups: Option<PathBuf>, found: Found) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), cgroups });
        let theirs = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("owners".to_owned()).spawn(move || run(&theirs, &found))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Looks for these ports from now on, through the network namespace of the given process.
    pub fn want(&self, ports: impl IntoIterator<Item = (u16, u32)>) {
        let mut state = self.shared.lock();
        state.wanted = ports.into_iter().collect();
        state.poked = true;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// One port more, unless its listener is known and lives.
    pub fn want_also(&self, port: u16, namespace_of: u32) {
        let mut state = self.shared.lock();
        let last =
            state.listeners.get(&port).and_then(|list| list.back()).map(|(_, owner)| Arc::clone(owner));
        let known = state.wanted.insert(port, namespace_of) == Some(namespace_of);
        drop(state);
        if known && last.is_some_and(|owner| owner.exists()) {
            return;
        }
        let mut state = self.shared.lock();
        // A browser that keeps asking for a serve that is down must not keep this thread walking.
        let lately = known && state.sought.get(&port).is_some_and(|then| then.elapsed() < AGAIN);
        if lately {
            return;
        }
        state.sought.insert(port, Instant::now());
        state.poked = true;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Who served `port` at a moment: the youngest known listener that had been started by then.
    #[must_use]
    pub fn at(&self, port: u16, moment: Nanos) -> Option<Arc<PortOwner>> {
        let state = self.shared.lock();
        let list = state.listeners.get(&port)?;
        let started = list.iter().map(|(_, owner)| owner).filter(|owner| owner.started_at <= moment);
        started.max_by_key(|owner| owner.started_at).cloned()
    }

    /// The OOM killer chose a process: keeps what is still to be known of it. Reads its command
    /// line: not for an event loop.
    pub fn oom(&self, pid: u32, at: Nanos) {
        let argv = proc::argv(pid);
        let cgroup = self.shared.cgroups.as_deref().and_then(|mount| cgroup::dir_of(mount, pid));
        let mut state = self.shared.lock();
        let argv = argv.or_else(|| state.argv.get(&pid).cloned());
        if state.victims.len() == VICTIMS {
            state.victims.pop_front();
        }
        state.victims.push_back(OomVictim { pid, argv, cgroup, at });
    }

    /// The OOM victims since a moment, oldest first.
    #[must_use]
    pub fn victims_since(&self, moment: Nanos) -> Vec<OomVictim> {
        self.shared.lock().victims.iter().filter(|victim| victim.at >= moment).cloned().collect()
    }

    /// The command line of a process as last seen, for one whose memory is gone.
    #[must_use]
    pub fn remembered_argv(&self, pid: u32) -> Option<String> {
        self.shared.lock().argv.get(&pid).cloned()
    }
}

impl Drop for PortOwners {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, found: &Found) {
    let mut argv_read = None::<Instant>;
    loop {
        let state = shared.lock();
        if state.stopping {
            return;
        }
        let wanted = state.wanted.clone();
        drop(state);
        let fresh = look(shared, &wanted);
        for owner in &fresh {
            found(owner);
        }
        if !fresh.is_empty() || argv_read.is_none_or(|then| then.elapsed() >= ARGV_EVERY) {
            read_argv(shared);
            argv_read = Some(Instant::now());
        }
        let mut state = shared.lock();
        if !state.poked && !state.stopping {
            state = shared.changed.wait_timeout(state, EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.poked = false;
    }
}

/// Finds the listeners that are not known yet and returns them.
fn look(shared: &Shared, wanted: &BTreeMap<u16, u32>) -> Vec<Arc<PortOwner>> {
    let namespaces: HashSet<u32> = wanted.values().copied().collect();
    let tables: HashMap<u32, HashMap<u16, Vec<u64>>> =
        namespaces.into_iter().map(|pid| (pid, net::listening(pid))).collect();
    let mut missing: HashMap<u64, u16> = HashMap::new();
    let state = shared.lock();
    for (port, namespace) in wanted {
        let Some(inodes) = tables.get(namespace).and_then(|table| table.get(port)) else { continue };
        let known = state.listeners.get(port).and_then(VecDeque::back);
        if known.is_some_and(|(inode, owner)| inodes.contains(inode) && owner.exists()) {
            continue;
        }
        missing.extend(inodes.iter().map(|inode| (*inode, *port)));
    }
    drop(state);
    if missing.is_empty() {
        return Vec::new();
    }
    let holders = proc::holders(&missing.keys().copied().collect());
    let mut fresh = Vec::new();
    for (inode, pids) in holders {
        // Of several holders the oldest is the one that opened the socket; the others inherited it.
        let owners = pids.into_iter().filter_map(|pid| PortOwner::of(pid, shared.cgroups.as_deref()));
        let Some(owner) = owners.min_by_key(|owner| (owner.start_ticks, owner.pid)) else { continue };
        let (port, owner) = (missing[&inode], Arc::new(owner));
        let mut state = shared.lock();
        let list = state.listeners.entry(port).or_default();
        list.retain(|(_, known)| **known != *owner);
        if list.len() == HISTORY {
            list.pop_front();
        }
        list.push_back((inode, Arc::clone(&owner)));
        fresh.push(owner);
    }
    fresh
}

fn read_argv(shared: &Shared) {
    let state = shared.lock();
    let current = state.listeners.values().filter_map(|list| list.back());
    let dirs: HashSet<PathBuf> = current.filter_map(|(_, owner)| owner.cgroup.clone()).collect();
    drop(state);
    let mut argv = HashMap::new();
    for dir in dirs {
        // The root cgroup holds what belongs to no unit; it is nobody's serve.
        if Some(&dir) == shared.cgroups.as_ref() {
            continue;
        }
        let pids = cgroup::members(&dir).into_iter().take(MEMBERS);
        argv.extend(pids.filter_map(|pid| Some((pid, proc::argv(pid)?))));
    }
    // A process that has just been killed may have lost its memory between two looks: what was
    // known of it stays.
    let mut state = shared.lock();
    let gone = std::mem::take(&mut state.argv)
        .into_iter()
        .filter(|(pid, _)| Path::new(&format!("/proc/{pid}")).exists());
    argv = gone.chain(argv).collect();
    state.argv = argv;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
        for _ in 0..200 {
            if let Some(found) = look() {
                return Some(found);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    #[test]
    fn the_listener_of_a_port_is_found_and_never_for_a_time_before_its_start() {
        let owners = PortOwners::start(None, Box::new(|_| ())).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        owners.want([(port, std::process::id())]);
        let owner = wait_for(|| owners.at(port, clock::monotonic())).unwrap();
        assert_eq!(owner.pid, std::process::id());
        assert!(owner.exists());
        assert_eq!(owners.at(port, owner.started_at - 1), None);
    }

    #[test]
    fn a_port_that_is_wanted_later_is_found_at_once() {
        let owners = PortOwners::start(None, Box::new(|_| ())).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        owners.want_also(port, std::process::id());
        assert!(wait_for(|| owners.at(port, clock::monotonic())).is_some());
    }

    #[test]
    fn a_listener_that_is_gone_is_remembered() {
        let owners = PortOwners::start(None, Box::new(|_| ())).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        owners.want([(port, std::process::id())]);
        wait_for(|| owners.at(port, clock::monotonic())).unwrap();
        drop(listener);
        owners.want([]);
        assert!(owners.at(port, clock::monotonic()).is_some());
    }

    #[test]
    fn victims_are_kept_with_their_argv_and_bounded() {
        let owners = PortOwners::start(None, Box::new(|_| ())).unwrap();
        for n in 0..100 {
            owners.oom(std::process::id(), n);
        }
        let victims = owners.victims_since(0);
        assert_eq!((victims.len(), victims[0].at), (VICTIMS, 36));
        assert!(victims[0].argv.as_deref().is_some_and(|argv| !argv.is_empty()));
        assert_eq!(owners.victims_since(99).len(), 1);
    }
}
