//! Process that listens on a port, its cgroup, and the argv of the processes in that cgroup.
//!
//! Runs on a separate thread, because a walk through all descriptors of a host takes long and
//! reading a command line may wait for a lock. Remembers earlier listeners of a port, so that a
//! session is never attributed to a process that started after it.

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
/// Minimum time between searches for one port outside the regular interval.
const SEARCH_AGAIN: Duration = Duration::from_millis(250);
const ARGV_EVERY: Duration = Duration::from_secs(5);
/// Remembered listeners per port.
const HISTORY: usize = 8;
/// Processes per cgroup whose argv is kept.
const MEMBERS: usize = 1024;
/// Remembered OOM victims.
const VICTIMS: usize = 64;

/// A process behind a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// Thread group id.
    pub pid: u32,
    /// Its comm when found.
    pub comm: String,
    /// Field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
    /// Start time, monotonic clock.
    pub started_at: Nanos,
    /// Directory of its cgroup (version 2).
    pub cgroup: Option<PathBuf>,
}

impl PortOwner {
    /// Reads a process.
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

    /// Whether the same process still exists (possibly as a zombie).
    #[must_use]
    pub fn exists(&self) -> bool {
        stat::read(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks)
    }
}

/// A process killed by the OOM killer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomVictim {
    /// Thread group id.
    pub pid: u32,
    /// Command line, if still readable.
    pub argv: Option<String>,
    /// Directory of its cgroup.
    pub cgroup: Option<PathBuf>,
    /// Time of the kill.
    pub at: Nanos,
}

#[derive(Debug, Default)]
struct State {
    /// Ports to search, each with a process in its network namespace.
    wanted: BTreeMap<u16, u32>,
    /// Listeners of a port with the socket inode, oldest first.
    listeners: HashMap<u16, VecDeque<(u64, Arc<PortOwner>)>>,
    /// Last search for a port outside the regular interval.
    searched: HashMap<u16, Instant>,
    argv: HashMap<u32, String>,
    victims: VecDeque<OomVictim>,
    notified: bool,
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

/// Handle of the search thread; stops it on drop.
#[derive(Debug)]
pub struct PortOwners {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl PortOwners {
    /// Starts the thread. `cgroups` is the mount point of version 2; `found` is called for each new
    /// listener.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(cgroups: Option<PathBuf>, found: Found) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), cgroups });
        let state = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("owners".to_owned()).spawn(move || run(&state, &found))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Replaces the set of searched ports, each with a process in its network namespace.
    pub fn want(&self, ports: impl IntoIterator<Item = (u16, u32)>) {
        let mut state = self.shared.lock();
        state.wanted = ports.into_iter().collect();
        state.notified = true;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Adds a port, unless its listener is known and running.
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
        // A browser that keeps querying a serve that is down must not keep this thread busy.
        let recent = known && state.searched.get(&port).is_some_and(|then| then.elapsed() < SEARCH_AGAIN);
        if recent {
            return;
        }
        state.searched.insert(port, Instant::now());
        state.notified = true;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Owner of `port` at a given time: the youngest known listener that had started by then.
    #[must_use]
    pub fn at(&self, port: u16, moment: Nanos) -> Option<Arc<PortOwner>> {
        let state = self.shared.lock();
        let list = state.listeners.get(&port)?;
        let started = list.iter().map(|(_, owner)| owner).filter(|owner| owner.started_at <= moment);
        started.max_by_key(|owner| owner.started_at).cloned()
    }

    /// Stores what is still readable of an OOM victim. Reads its command line: not for an event
    /// loop.
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

    /// OOM victims since a given time, oldest first.
    #[must_use]
    pub fn victims_since(&self, moment: Nanos) -> Vec<OomVictim> {
        self.shared.lock().victims.iter().filter(|victim| victim.at >= moment).cloned().collect()
    }

    /// Last known command line of a process, for one whose memory is gone.
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
        let fresh = search(shared, &wanted);
        for owner in &fresh {
            found(owner);
        }
        if !fresh.is_empty() || argv_read.is_none_or(|then| then.elapsed() >= ARGV_EVERY) {
            read_argv(shared);
            argv_read = Some(Instant::now());
        }
        let mut state = shared.lock();
        if !state.notified && !state.stopping {
            state = shared.changed.wait_timeout(state, EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.notified = false;
    }
}

/// Returns listeners that were not known.
fn search(shared: &Shared, wanted: &BTreeMap<u16, u32>) -> Vec<Arc<PortOwner>> {
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
        // Of several holders the oldest opened the socket; the others inherited it.
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
        // The root cgroup contains processes outside of any unit, never a serve.
        if Some(&dir) == shared.cgroups.as_ref() {
            continue;
        }
        let pids = cgroup::members(&dir).into_iter().take(MEMBERS);
        argv.extend(pids.filter_map(|pid| Some((pid, proc::argv(pid)?))));
    }
    // The memory of a process that was just killed may be gone: keep its last known argv.
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

    fn wait_for<T>(mut find: impl FnMut() -> Option<T>) -> Option<T> {
        for _ in 0..200 {
            if let Some(found) = find() {
                return Some(found);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    #[test]
    fn a_listener_owns_its_port_only_since_its_start() {
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
    fn a_port_added_later_is_searched_immediately() {
        let owners = PortOwners::start(None, Box::new(|_| ())).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        owners.want_also(port, std::process::id());
        assert!(wait_for(|| owners.at(port, clock::monotonic())).is_some());
    }

    #[test]
    fn a_closed_listener_is_remembered() {
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
    fn oom_victims_are_kept_with_their_argv_up_to_a_limit() {
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
