//! Processes that hold serve's end of a connection, found by its inode.
//!
//! The kernel side names the process that *closes* a connection; of one that is open only the
//! descriptors tell. Of a cluster this is the worker and not the master, after socket activation
//! serve and not the activator. Reading takes milliseconds, so one reading serves all queries of a
//! port for a second.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use t3_trace_host::proc::{self, net};

/// Age up to which a reading is used for a connection that it has.
const FRESH: Duration = Duration::from_secs(1);
/// The same for one that it does not have: it may be younger.
const RETRY: Duration = Duration::from_millis(200);
/// Minimum time between searches among the processes that are not likely.
const WALK: Duration = Duration::from_secs(10);

/// Connections of one port.
#[derive(Debug, Default)]
struct Reading {
    taken: Option<Instant>,
    walked: Option<Instant>,
    inodes: HashMap<(SocketAddr, SocketAddr), u64>,
    holders: HashMap<u64, Vec<u32>>,
}

/// Readings by port and network namespace.
#[derive(Debug, Default)]
pub(crate) struct ConnectionOwners {
    readings: Mutex<HashMap<(u16, u32), Reading>>,
}

impl ConnectionOwners {
    /// Processes that hold the connection to `local` from `remote`, in the network namespace of the
    /// process `namespace_of`, from an earlier reading; `None` if a reading is due or in progress.
    pub(crate) fn known(&self, local: SocketAddr, remote: SocketAddr, namespace_of: u32) -> Option<Vec<u32>> {
        let readings = self.readings.try_lock().ok()?;
        let reading = readings.get(&(local.port(), namespace_of))?;
        let wanted = connection(local, remote);
        (!reading.is_due(&wanted)).then(|| reading.holders_of(&wanted))
    }

    /// Processes that hold the connection to `local` from `remote`, in the network namespace of the
    /// process `namespace_of`. Searches the processes `likely` first, then all with
    /// [`proc::nearest_holders`].
    pub(crate) fn holders(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        namespace_of: u32,
        likely: &[u32],
        related: impl Fn(u32) -> Option<Vec<u32>>,
    ) -> Vec<u32> {
        let wanted = connection(local, remote);
        // Held while reading, so that queries at the same time share the result.
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = readings.entry((local.port(), namespace_of)).or_default();
        if reading.is_due(&wanted) {
            reading.read(local.port(), namespace_of, &wanted, likely, related);
        }
        reading.holders_of(&wanted)
    }
}

/// Key of a connection.
fn connection(local: SocketAddr, remote: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    (canonical(local), canonical(remote))
}

impl Reading {
    fn is_due(&self, wanted: &(SocketAddr, SocketAddr)) -> bool {
        let known = self.inodes.get(wanted).is_some_and(|inode| self.holders.contains_key(inode));
        let limit = if known { FRESH } else { RETRY };
        self.taken.is_none_or(|taken| taken.elapsed() >= limit)
    }

    fn holders_of(&self, wanted: &(SocketAddr, SocketAddr)) -> Vec<u32> {
        let inode = self.inodes.get(wanted);
        inode.and_then(|inode| self.holders.get(inode)).cloned().unwrap_or_default()
    }

    fn read(
        &mut self,
        port: u16,
        namespace_of: u32,
        wanted: &(SocketAddr, SocketAddr),
        likely: &[u32],
        related: impl Fn(u32) -> Option<Vec<u32>>,
    ) {
        let rows = net::connections(namespace_of).filter(|row| row.local.port() == port);
        self.inodes = rows.map(|row| ((row.local, row.remote), row.inode)).collect();
        let inodes: HashSet<u64> = self.inodes.values().copied().collect();
        self.holders = proc::holders_among(likely.iter().copied(), &inodes);
        let missing = self.inodes.get(wanted).is_some_and(|inode| !self.holders.contains_key(inode));
        if missing && self.walked.is_none_or(|walked| walked.elapsed() >= WALK) {
            self.holders = proc::nearest_holders(&inodes, likely, related);
            self.walked = Some(Instant::now());
        }
        self.taken = Some(Instant::now());
    }
}
