//! Process that listens on an address, its cgroup, and the argv of the processes in that cgroup.
//!
//! Runs on a separate thread, because a walk through all descriptors of a host takes long and
//! reading a command line may wait for a lock. Remembers earlier listeners of a port, so that a
//! session is never attributed to a process that started after it.
//!
//! Several programs can listen on one port: on other addresses, or on the same socket (socket
//! activation, a cluster). The address of a connection selects its listener as the kernel does
//! (inet_lookup_listener); the process that accepted it is found by its descriptor
//! (`connection_owners`).

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
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

use crate::{connection_owners::ConnectionOwners, forwarder::Forwarders};

const EVERY: Duration = Duration::from_secs(2);
/// Minimum time between searches for one port outside the regular interval.
const SEARCH_AGAIN: Duration = Duration::from_millis(250);
const ARGV_EVERY: Duration = Duration::from_secs(5);
/// Remembered listeners per port.
const HISTORY: usize = 16;
/// Processes per listening socket whose cgroup is sampled.
const HOLDERS: usize = 16;
/// Time after its disappearance in which a listening socket still explains a new session: it is
/// noticed only at the next search.
const GONE: Nanos = 5 * clock::SECOND;
/// Processes per cgroup whose argv is kept.
const MEMBERS: usize = 1024;
/// Ancestors of a process that may have opened its sockets.
const ANCESTORS: usize = 64;
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

/// A listening socket of a watched port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its address; unspecified when it accepts connections to any.
    pub ip: IpAddr,
    inode: u64,
    /// Of several processes that hold it the oldest, which opened it.
    pub owner: Arc<PortOwner>,
    /// The others: a serve that was started with the socket, the workers of a cluster.
    pub others: Vec<PortOwner>,
    /// Time at which it was no longer there.
    gone_at: Option<Nanos>,
}

impl Listener {
    /// How well it matches a connection to this address; `None` if it does not accept it. Higher
    /// values win (net/ipv4/inet_hashtables.c, `compute_score`).
    fn score(&self, ip: IpAddr) -> Option<u8> {
        match self.ip {
            own if own == ip => Some(2),
            IpAddr::V4(own) if own.is_unspecified() && ip.is_ipv4() => Some(1),
            IpAddr::V6(own) if own.is_unspecified() => Some(0),
            _ => None,
        }
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
    /// Listeners of a port, oldest first.
    listeners: HashMap<u16, VecDeque<Listener>>,
    /// Last search for a port outside the regular interval.
    searched: HashMap<u16, Instant>,
    /// Last search of [`PortOwners::search`].
    searched_directly: HashMap<u16, Instant>,
    /// Members of the cgroups of the listeners: their argv and cgroup.
    members: HashMap<u32, (String, PathBuf)>,
    victims: VecDeque<OomVictim>,
    notified: bool,
    stopping: bool,
}

type Found = Box<dyn Fn(&Listener) + Send + Sync>;
/// Processes that are likely to listen on a serve port.
type Likely = Box<dyn Fn() -> Vec<u32> + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    cgroups: Option<PathBuf>,
    forwarders: Forwarders,
    found: Found,
    likely: Likely,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Processes that may hold the sockets of a process, too: those of its cgroup, its ancestors
    /// that may have opened them, and the first process, which has those of socket units. `None`
    /// without a cgroup of a unit.
    fn related(&self, pid: u32) -> Option<Vec<u32>> {
        let mount = self.cgroups.as_deref()?;
        let dir = cgroup::dir_of(mount, pid).filter(|dir| dir != mount)?;
        let members = cgroup::members(&dir).into_iter().take(MEMBERS);
        let parent = |pid: &u32| stat::read(*pid).map(|stat| stat.parent).filter(|parent| *parent > 1);
        let ancestors = std::iter::successors(parent(&pid), parent).take(ANCESTORS);
        Some(members.chain(ancestors).chain([1]).collect())
    }
}

/// Process that accepted a connection by the time `moment`, among those that hold it; `None` if
/// none of them did.
pub(crate) fn acceptor(
    holders: impl IntoIterator<Item = PortOwner>,
    moment: Nanos,
) -> Option<Arc<PortOwner>> {
    // A process that started after the session inherited the connection, and so did the younger of
    // two that hold it.
    let earlier = holders.into_iter().filter(|owner| owner.started_at <= moment);
    earlier.min_by_key(|owner| (owner.started_at, owner.pid)).map(Arc::new)
}

/// Handle of the search thread; stops it on drop.
pub struct PortOwners {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    connections: ConnectionOwners,
}

impl PortOwners {
    /// Starts the thread. `cgroups` is the mount point of version 2; `found` is called for each new
    /// listener; a search begins with the processes that `likely` returns.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(cgroups: Option<PathBuf>, found: Found, likely: Likely) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            cgroups,
            forwarders: Forwarders::default(),
            found,
            likely,
        });
        let state = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("owners".to_owned()).spawn(move || run(&state))?;
        Ok(Self { shared, thread: Some(thread), connections: ConnectionOwners::default() })
    }

    /// Replaces the set of searched ports, each with a process in its network namespace.
    pub fn want(&self, ports: impl IntoIterator<Item = (u16, u32)>) {
        let mut state = self.shared.lock();
        state.wanted = ports.into_iter().collect();
        state.notified = true;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Adds the port of an address, unless its listener is known and running.
    pub fn want_also(&self, address: SocketAddr, namespace_of: u32) {
        let port = address.port();
        self.shared.forwarders.opened(port);
        let owner = self.at(address, clock::monotonic());
        let mut state = self.shared.lock();
        let known = state.wanted.insert(port, namespace_of) == Some(namespace_of);
        drop(state);
        if known && owner.is_some_and(|owner| owner.exists()) {
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

    /// Searches the listener of a port now, beside the thread, which may be reading something else
    /// for longer than a record can wait. Reads tables and descriptors: not for an event loop.
    pub(crate) fn search(&self, port: u16, namespace_of: u32) {
        let mut state = self.shared.lock();
        let recent = state.searched_directly.get(&port).is_some_and(|then| then.elapsed() < SEARCH_AGAIN);
        if recent {
            return;
        }
        state.searched_directly.insert(port, Instant::now());
        drop(state);
        search_and_report(&self.shared, &BTreeMap::from([(port, namespace_of)]));
    }

    /// Owner of the listener of `address` at a given time: the one with the most specific address,
    /// and of several the youngest that had started by then.
    #[must_use]
    pub fn at(&self, address: SocketAddr, moment: Nanos) -> Option<Arc<PortOwner>> {
        let ip = address.ip().to_canonical();
        let state = self.shared.lock();
        let list = state.listeners.get(&address.port())?.iter();
        let then = list.filter(|listener| {
            listener.owner.started_at <= moment && listener.gone_at.is_none_or(|gone| moment <= gone + GONE)
        });
        let scored = then.filter_map(|listener| Some((listener.score(ip)?, &listener.owner)));
        scored.max_by_key(|(score, owner)| (*score, owner.started_at)).map(|(_, owner)| Arc::clone(owner))
    }

    /// Processes that hold the connection to `local` from `remote`, found by their descriptors;
    /// `None` if tables and descriptors must be read, see [`Self::find_holders`]. Never waits.
    pub(crate) fn known_holders(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        namespace_of: u32,
    ) -> Option<Vec<u32>> {
        self.connections.known(local, remote, namespace_of)
    }

    /// As [`Self::known_holders`]. Reads tables and descriptors if needed: not for an event loop.
    pub(crate) fn find_holders(&self, local: SocketAddr, remote: SocketAddr, namespace_of: u32) -> Vec<u32> {
        let likely: Vec<u32> = {
            let state = self.shared.lock();
            let listeners = state.listeners.get(&local.port()).into_iter().flatten();
            let processes =
                listeners.flat_map(|listener| std::iter::once(&*listener.owner).chain(&listener.others));
            let dirs: HashSet<&PathBuf> =
                processes.clone().filter_map(|owner| owner.cgroup.as_ref()).collect();
            let members =
                state.members.iter().filter(|(_, (_, dir))| dirs.contains(dir)).map(|(pid, _)| *pid);
            processes.map(|owner| owner.pid).chain(members).collect()
        };
        self.connections.holders(local, remote, namespace_of, &likely, |pid| self.shared.related(pid))
    }

    /// Mount point of cgroup version 2.
    #[must_use]
    pub(crate) fn cgroups(&self) -> Option<&Path> {
        self.shared.cgroups.as_deref()
    }

    /// Reads a process, with its cgroup.
    pub(crate) fn read(&self, pid: u32) -> Option<PortOwner> {
        PortOwner::of(pid, self.shared.cgroups.as_deref())
    }

    /// Whether a process only forwards to another one.
    #[must_use]
    pub fn is_forwarder(&self, comm: &str, owner: Option<&PortOwner>) -> bool {
        self.shared.forwarders.contains(comm, owner.map(|owner| (owner.pid, owner.start_ticks)))
    }

    /// Last known cgroup of a process in the cgroup of a listener, also after its end.
    #[must_use]
    pub fn cgroup_of(&self, pid: u32) -> Option<PathBuf> {
        let now = self.shared.cgroups.as_deref().and_then(|mount| cgroup::dir_of(mount, pid));
        now.or_else(|| self.shared.lock().members.get(&pid).map(|(_, dir)| dir.clone()))
    }

    /// Stores what is still readable of an OOM victim. Reads its command line: not for an event
    /// loop.
    pub fn oom(&self, pid: u32, at: Nanos) {
        let argv = proc::argv(pid);
        let cgroup = self.shared.cgroups.as_deref().and_then(|mount| cgroup::dir_of(mount, pid));
        let state = self.shared.lock();
        let argv = argv.or_else(|| state.members.get(&pid).map(|(argv, _)| argv.clone()));
        drop(state);
        self.keep_victim(OomVictim { pid, argv, cgroup, at });
    }

    pub(crate) fn keep_victim(&self, victim: OomVictim) {
        let mut state = self.shared.lock();
        if state.victims.len() == VICTIMS {
            state.victims.pop_front();
        }
        state.victims.push_back(victim);
    }

    /// OOM victims since a given time, oldest first.
    #[must_use]
    pub fn victims_since(&self, moment: Nanos) -> Vec<OomVictim> {
        self.shared.lock().victims.iter().filter(|victim| victim.at >= moment).cloned().collect()
    }

    /// Last known command line of a process, for one whose memory is gone.
    #[must_use]
    pub fn remembered_argv(&self, pid: u32) -> Option<String> {
        self.shared.lock().members.get(&pid).map(|(argv, _)| argv.clone())
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

/// Searches, and reports new listeners; returns whether there were any.
fn search_and_report(shared: &Shared, wanted: &BTreeMap<u16, u32>) -> bool {
    let fresh = search(shared, wanted);
    for listener in &fresh {
        (shared.found)(listener);
    }
    !fresh.is_empty()
}

fn run(shared: &Shared) {
    let mut argv_read = None::<Instant>;
    loop {
        let state = shared.lock();
        if state.stopping {
            return;
        }
        let wanted = state.wanted.clone();
        drop(state);
        let has_found = search_and_report(shared, &wanted);
        for port in shared.forwarders.take_due() {
            let Some(namespace_of) = wanted.get(&port) else { continue };
            let listeners = shared.lock().listeners.get(&port).cloned().unwrap_or_default();
            let current = listeners.iter().filter(|listener| listener.gone_at.is_none());
            let owners =
                current.flat_map(|listener| std::iter::once(&*listener.owner).chain(&listener.others));
            let processes = owners.map(|owner| (owner.pid, owner.start_ticks));
            shared.forwarders.examine(port, *namespace_of, processes);
        }
        if has_found || argv_read.is_none_or(|then| then.elapsed() >= ARGV_EVERY) {
            read_members(shared);
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
fn search(shared: &Shared, wanted: &BTreeMap<u16, u32>) -> Vec<Listener> {
    let namespaces: HashSet<u32> = wanted.values().copied().collect();
    let tables: HashMap<u32, Vec<net::Row>> =
        namespaces.into_iter().map(|pid| (pid, net::listeners(pid).collect())).collect();
    let now = clock::monotonic();
    let mut missing: HashMap<u64, SocketAddr> = HashMap::new();
    let mut state = shared.lock();
    for (port, namespace) in wanted {
        let table = tables.get(namespace).into_iter().flatten().filter(|row| row.local.port() == *port);
        let mut there: HashMap<u64, SocketAddr> = table.map(|row| (row.inode, row.local)).collect();
        for listener in state.listeners.get_mut(port).into_iter().flatten() {
            match there.get(&listener.inode) {
                None => listener.gone_at = listener.gone_at.or(Some(now)),
                // An inherited socket outlives its owner.
                Some(_) if listener.owner.exists() => {
                    there.remove(&listener.inode);
                }
                Some(_) => {}
            }
        }
        missing.extend(there);
    }
    drop(state);
    if missing.is_empty() {
        return Vec::new();
    }
    let holders = proc::nearest_holders(&missing.keys().copied().collect(), &(shared.likely)(), |pid| {
        shared.related(pid)
    });
    let mut fresh = Vec::new();
    for (inode, pids) in holders {
        // Of several holders the oldest opened the socket; the others inherited it.
        let owners = pids.into_iter().filter_map(|pid| PortOwner::of(pid, shared.cgroups.as_deref()));
        let mut owners: Vec<PortOwner> = owners.collect();
        owners.sort_by_key(|owner| (owner.start_ticks, owner.pid));
        owners.truncate(HOLDERS);
        let (Some(address), false) = (missing.get(&inode), owners.is_empty()) else { continue };
        let owner = Arc::new(owners.remove(0));
        let listener = Listener { ip: address.ip(), inode, owner, others: owners, gone_at: None };
        let mut state = shared.lock();
        let list = state.listeners.entry(address.port()).or_default();
        // Found by a search at the same time.
        let is_same = |known: &Listener| known.inode == inode && known.owner == listener.owner;
        if list.iter().any(|known| known.gone_at.is_none() && is_same(known)) {
            continue;
        }
        // Renamed by exec, or moved to another cgroup.
        list.retain(|known| known.inode != inode || known.owner.pid != listener.owner.pid);
        if list.len() == HISTORY {
            list.pop_front();
        }
        list.push_back(listener.clone());
        fresh.push(listener);
    }
    fresh
}

fn read_members(shared: &Shared) {
    let state = shared.lock();
    let current = state.listeners.values().flatten().filter(|listener| listener.gone_at.is_none());
    let processes = current.flat_map(|listener| std::iter::once(&*listener.owner).chain(&listener.others));
    let dirs: HashSet<PathBuf> = processes.filter_map(|owner| owner.cgroup.clone()).collect();
    drop(state);
    let mut members = HashMap::new();
    for dir in dirs {
        // The root cgroup contains processes outside of any unit, never a serve.
        if Some(&dir) == shared.cgroups.as_ref() {
            continue;
        }
        let pids = cgroup::members(&dir).into_iter().take(MEMBERS);
        members.extend(pids.filter_map(|pid| Some((pid, (proc::argv(pid)?, dir.clone())))));
    }
    // The memory of a process that was just killed may be gone: keep its last known argv.
    let mut state = shared.lock();
    let gone = std::mem::take(&mut state.members)
        .into_iter()
        .filter(|(pid, _)| Path::new(&format!("/proc/{pid}")).exists());
    members = gone.chain(members).collect();
    state.members = members;
}

#[cfg(test)]
mod tests;
