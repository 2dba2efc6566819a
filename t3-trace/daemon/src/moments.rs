//! Facts that are the same for all sessions that end at one instant: losses of the kernel side, and
//! the state of a process. The first query that needs one reads it, for all queries of the moment.
//!
//! A query joins a moment after it has read its sockets. The moment begins later: none can join it
//! any more, and its facts are read. So none of them is older than the socket events of any session
//! that uses it: a loss that explains a missing event is counted, and a process whose exit closed
//! the connection does not count as alive.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use t3_trace_host::{
    cgroup,
    kernel::{ProcessFacts, view::KernelView},
    proc::{network_namespace, stat, status},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    locked::lock,
    port_owners::{PortOwner, PortOwners},
};

/// Minimum time between the begins of two moments: about the longest wait for one.
const INTERVAL: Duration = Duration::from_millis(1);

/// Moments of all queries.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Moment that has not begun.
    next: Option<Arc<Moment>>,
    /// Begin of the one before it.
    begun_at: Option<Instant>,
}

impl Moments {
    /// Joins the next moment and waits for its begin: until all queries that can run have joined
    /// it, and for [`INTERVAL`] after the one before it.
    pub(crate) async fn next(&self) -> Arc<Moment> {
        let (moment, earliest) = self.join();
        // A timer is never immediate.
        if let Some(earliest) = earliest.filter(|earliest| *earliest > Instant::now()) {
            sleep_until(earliest).await;
        }
        tokio::task::yield_now().await;
        self.begin(&moment, Instant::now());
        moment
    }

    /// The next moment, and the time before which it does not begin.
    fn join(&self) -> (Arc<Moment>, Option<Instant>) {
        let mut state = lock(&self.state);
        let earliest = state.begun_at.map(|at| at + INTERVAL);
        (Arc::clone(state.next.get_or_insert_default()), earliest)
    }

    /// Each query calls it before it reads a fact; for the first of a moment it begins.
    fn begin(&self, moment: &Arc<Moment>, now: Instant) {
        let mut state = lock(&self.state);
        if state.next.take_if(|next| Arc::ptr_eq(next, moment)).is_some() {
            state.begun_at = Some(now);
        }
    }
}

/// Losses of the kernel side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Lost events and facts since the load.
    pub(crate) total: u64,
    /// Whether the tables had too little room in the last minute.
    pub(crate) is_overflowed: bool,
}

/// Facts of one moment.
#[derive(Debug, Default)]
pub(crate) struct Moment {
    losses: OnceLock<Losses>,
    processes: Mutex<HashMap<u32, Arc<ProcessNow>>>,
}

impl Moment {
    pub(crate) fn losses(&self, read: impl FnOnce() -> Losses) -> Losses {
        *self.losses.get_or_init(read)
    }

    fn process(&self, pid: u32) -> Arc<ProcessNow> {
        Arc::clone(lock(&self.processes).entry(pid).or_default())
    }

    /// Inode of the network namespace of a process.
    pub(crate) fn network_namespace(&self, pid: u32) -> Option<u32> {
        *self.process(pid).network_namespace.get_or_init(|| network_namespace(pid))
    }

    /// The process as an owner of sockets.
    pub(crate) fn owner(&self, pid: u32, owners: &PortOwners) -> Option<PortOwner> {
        self.process(pid).owner.get_or_init(|| owners.read(pid)).clone()
    }
}

/// A process at one moment; each fact is read at most once.
#[derive(Debug, Default)]
struct ProcessNow {
    recorded: OnceLock<Option<ProcessFacts>>,
    stat: OnceLock<Option<stat::Stat>>,
    is_dying: OnceLock<bool>,
    cgroup: OnceLock<Option<PathBuf>>,
    is_frozen: OnceLock<bool>,
    network_namespace: OnceLock<Option<u32>>,
    owner: OnceLock<Option<PortOwner>>,
}

/// Processes at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Processes<'a> {
    pub(crate) kernel: &'a dyn KernelView,
    pub(crate) owners: &'a PortOwners,
    pub(crate) moment: &'a Moment,
}

impl Processes<'_> {
    /// See [`KernelView::process`].
    pub(crate) fn recorded(&self, pid: u32) -> Option<ProcessFacts> {
        self.moment.process(pid).recorded.get_or_init(|| self.kernel.process(pid)).clone()
    }

    /// See [`stat::read`].
    pub(crate) fn stat(&self, pid: u32) -> Option<stat::Stat> {
        self.moment.process(pid).stat.get_or_init(|| stat::read(pid)).clone()
    }

    /// See [`status::is_dying`].
    pub(crate) fn is_dying(&self, pid: u32) -> bool {
        *self.moment.process(pid).is_dying.get_or_init(|| status::is_dying(pid))
    }

    /// See [`PortOwners::cgroup_of`].
    pub(crate) fn cgroup_of(&self, pid: u32) -> Option<PathBuf> {
        self.moment.process(pid).cgroup.get_or_init(|| self.owners.cgroup_of(pid)).clone()
    }

    /// Whether the cgroup of a process or an ancestor is frozen.
    pub(crate) fn is_frozen(&self, pid: u32) -> bool {
        let read = || self.cgroup_of(pid).is_some_and(|dir| cgroup::is_frozen(&dir));
        *self.moment.process(pid).is_frozen.get_or_init(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_query_joins_a_moment_that_has_begun() {
        let (moments, start) = (Moments::default(), Instant::now());
        let (first, earliest) = moments.join();
        assert_eq!(earliest, None, "a single query does not wait");
        assert!(Arc::ptr_eq(&first, &moments.join().0), "it has not begun");
        moments.begin(&first, start);
        let (second, earliest) = moments.join();
        assert!(!Arc::ptr_eq(&first, &second), "its facts may be older than this query");
        assert_eq!(earliest, Some(start + INTERVAL));
        // The other query of the first moment.
        moments.begin(&first, start + INTERVAL / 2);
        assert!(Arc::ptr_eq(&second, &moments.join().0));
        assert_eq!(moments.join().1, Some(start + INTERVAL));
        moments.begin(&second, start + INTERVAL * 3);
        assert_eq!(moments.join().1, Some(start + INTERVAL * 4));
    }

    #[tokio::test]
    async fn queries_that_can_run_share_a_moment() {
        let moments = Arc::new(Moments::default());
        let mut queries = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let moments = Arc::clone(&moments);
            queries.spawn(async move { moments.next().await });
        }
        let shared = queries.join_all().await;
        assert!(shared.iter().all(|moment| Arc::ptr_eq(moment, &shared[0])));
        assert!(!Arc::ptr_eq(&moments.next().await, &shared[0]));
    }

    #[test]
    fn facts_of_a_moment_are_read_once() {
        let moment = Moment::default();
        let losses = Losses { total: 7, is_overflowed: true };
        assert_eq!(moment.losses(|| losses), losses);
        assert_eq!(moment.losses(|| unreachable!("read before")), losses);
        let (this, owners) =
            (std::process::id(), PortOwners::start(None, Box::new(|_| ()), Box::new(Vec::new)).unwrap());
        let found = moment.owner(this, &owners).unwrap();
        assert_eq!((found.pid, Some(found)), (this, moment.owner(this, &owners)));
        assert_eq!(moment.owner(u32::MAX, &owners), None);
        assert!(Arc::ptr_eq(&moment.process(this), &moment.process(this)));
        assert!(!Arc::ptr_eq(&moment.process(this), &Moment::default().process(this)));
    }
}
