//! Outgoing connections of watched units.
//!
//! The kernel side selects them by the cgroup of the process that connects. The numbers of a unit's
//! cgroups change when it starts again, so they are searched every two seconds; connections that it
//! opened before that are found in the socket tables.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    path::Path,
    sync::PoisonError,
    time::Duration,
};

use t3_record::evidence::{Nanos, Task};
use t3_trace_host::{
    cgroup::{self, Tree},
    kernel::{ClosedConnection, Outgoing, ServeTuple},
    proc::{self, net, network_namespace, stat},
};

use super::{WatchedUnit, budget::Budget};
use crate::state::Shared;

/// Limit of followed connections that are older than the watch.
const MOST_OLDER: usize = 10_000;
/// Limit of remembered cgroups that no longer exist.
const MOST_ENDED: usize = 256;

/// Process at the end of an outgoing connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) task: Task,
    pub(super) unit: Option<String>,
}

/// What becomes of a closed outgoing connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It gets a record.
    Record { holder: Holder, is_older: bool },
    /// No watch includes it.
    Ignore,
    /// The budget is used up; `is_first` in this minute.
    OverBudget { unit: String, is_first: bool },
}

/// Watched units and their cgroups.
#[derive(Debug, Default)]
pub(super) struct Units {
    watched: Vec<(WatchedUnit, Budget)>,
    /// Unit by cgroup.
    cgroups: BTreeMap<u64, String>,
    /// The same of cgroups that no longer exist, the last one at the end.
    ended: VecDeque<(u64, String)>,
    /// Connections that were open before their cgroup was watched.
    older: HashMap<ServeTuple, Holder>,
}

impl Units {
    pub(super) fn new(watched: &[WatchedUnit]) -> Self {
        let watched = watched.iter().map(|unit| (unit.clone(), Budget::default()));
        Self { watched: watched.collect(), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Sets the cgroups of the watched units; returns the new ones, or `None` if nothing changed.
    fn set_cgroups(&mut self, tree: &Tree) -> Option<Vec<(u64, String)>> {
        let of =
            |unit: &str| tree.of_unit(unit).into_iter().map(|id| (id, unit.to_owned())).collect::<Vec<_>>();
        let found: BTreeMap<u64, String> =
            self.watched.iter().flat_map(|(watched, _)| of(&watched.unit)).collect();
        let is_changed = found.keys().ne(self.cgroups.keys());
        let new = found.iter().filter(|(id, _)| !self.cgroups.contains_key(id));
        let new = new.map(|(id, unit)| (*id, unit.clone())).collect();
        // A unit that has just ended, whose connections close now.
        let ended = std::mem::replace(&mut self.cgroups, found);
        self.ended.extend(ended.into_iter().filter(|(id, _)| !self.cgroups.contains_key(id)));
        while self.ended.len() > MOST_ENDED {
            self.ended.pop_front();
        }
        is_changed.then_some(new)
    }

    fn add_older(&mut self, found: Vec<(ServeTuple, Holder)>) {
        for (tuple, holder) in found {
            if self.older.len() < MOST_OLDER {
                self.older.insert(tuple, holder);
            }
        }
    }

    /// Configuration of the kernel side.
    pub(super) fn outgoing(&self) -> Outgoing {
        let min_age = self.watched.iter().map(|(watched, _)| watched.min_duration).min();
        Outgoing {
            cgroups: self.cgroups.keys().copied().collect(),
            min_age: nanos(min_age.unwrap_or_default()),
            older: self.older.keys().copied().collect(),
        }
    }

    /// A connection closed.
    pub(super) fn close(&mut self, closed: &ClosedConnection) -> Decision {
        let older = self.older.remove(&closed.tuple);
        let opener = closed.opener.as_ref().and_then(|opener| {
            let ended = || self.ended.iter().rev().find(|(id, _)| *id == opener.cgroup).map(|(_, unit)| unit);
            let unit = self.cgroups.get(&opener.cgroup).or_else(ended)?.clone();
            Some(Holder { task: opener.task.clone(), unit: Some(unit) })
        });
        let is_older = opener.is_none();
        let Some(holder) = opener.or(older) else { return Decision::Ignore };
        let opened_at = closed.generation.established_at().filter(|_| !is_older);
        let age = opened_at.map(|opened| Duration::from_nanos(closed.at.saturating_sub(opened)));
        let port = closed.tuple.remote.port();
        let unit = holder.unit.clone().unwrap_or_default();
        let watch = self.watched.iter_mut().find(|(watched, _)| watched.includes(&unit, port, age));
        let Some((watched, budget)) = watch else { return Decision::Ignore };
        if budget.take(closed.at, watched.budget).is_granted {
            Decision::Record { holder, is_older }
        } else {
            Decision::OverBudget { unit, is_first: budget.is_first_over() }
        }
    }
}

fn nanos(duration: Duration) -> Nanos {
    duration.as_nanos().try_into().unwrap_or(Nanos::MAX)
}

/// Searches the cgroups of the watched units, and the open connections of new ones.
pub(super) fn pass(shared: &Shared) {
    if shared.direct.units().is_empty() {
        return;
    }
    let Some(mount) = shared.owners.cgroups() else { return };
    let tree = Tree::read(mount);
    let Some(new) = shared.direct.units().set_cgroups(&tree) else { return };
    // New connections first: those that are open by then are in the tables.
    apply(shared);
    let found: Vec<_> = new.iter().flat_map(|(id, unit)| open_connections(tree.dir(*id), unit)).collect();
    if !found.is_empty() {
        shared.direct.units().add_older(found);
        apply(shared);
    }
}

fn apply(shared: &Shared) {
    let mut kernel = shared.kernel.write().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = shared.direct.apply(&mut **kernel) {
        tracing::warn!(error, "cannot watch outgoing connections");
    }
}

/// Connections that the processes of a cgroup have opened.
fn open_connections(dir: Option<&Path>, unit: &str) -> Vec<(ServeTuple, Holder)> {
    let mut found = Vec::new();
    let members = dir.map(cgroup::members).unwrap_or_default();
    let mut tables: HashMap<Option<u32>, (Vec<net::Row>, HashSet<u16>)> = HashMap::new();
    for pid in members {
        let Some(stat) = stat::read(pid) else { continue };
        let netns = network_namespace(pid);
        let (rows, listening) = tables.entry(netns).or_insert_with(|| {
            (net::connections(pid).collect(), net::listeners(pid).map(|row| row.local.port()).collect())
        });
        let sockets: HashSet<u64> = proc::sockets(pid).into_iter().collect();
        let rows = rows.iter().filter(|row| sockets.contains(&row.inode));
        let opened = rows.filter(|row| !listening.contains(&row.local.port()));
        let holder = Holder { task: Task { pid, comm: stat.comm }, unit: Some(unit.to_owned()) };
        found.extend(
            opened.map(|row| (ServeTuple { local: row.local, remote: row.remote, netns }, holder.clone())),
        );
    }
    found
}

#[cfg(test)]
mod tests;
