//! Connections to watched ports that t3-dispatch does not carry, and their `tcp close` records.
//!
//! The kernel side reports each connection that closes after the minimum age of its port. While it
//! is open, `identify` finds the processes at its ends: those of dispatch are not recorded, since
//! a session has its `ws close` and a pooled HTTP connection is not a session.

mod budget;
mod close;
mod identify;
mod legs;
mod outgoing;
mod pair_record;
mod pairs;
mod session_entry;
mod table;
mod users;
mod watched_port;
mod watched_unit;

use std::{
    os::fd::OwnedFd,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use t3_record::wire::{DirectState, PortUser};
use t3_trace_host::kernel::{Generation, ServeTuple, view::KernelView};
use tokio::sync::{Notify, Semaphore};

use crate::{locked::lock, metrics::Closes, options::Options};
pub(crate) use close::follow;
pub(crate) use identify::run;
pub use watched_port::WatchedPort;
pub use watched_unit::{Watch, WatchedUnit};

use legs::Legs;
use outgoing::Units;
use table::Table;
use users::Users;

/// Records of direct connections that are made at the same time.
const AT_ONCE: usize = 16;

/// State of all direct connections.
pub(crate) struct Direct {
    configured: Vec<WatchedPort>,
    watch_serve: bool,
    table: Mutex<Table>,
    units: Mutex<Units>,
    /// Of the routing tables.
    users: Mutex<Users>,
    own_namespace: u32,
    /// Ports changed: identify the processes of their connections now.
    changed: Notify,
    stopping: Notify,
    turns: Semaphore,
    legs: Legs,
    written: AtomicU64,
    /// The same by port and verdict.
    closes: Mutex<Closes>,
    over_budget: AtomicU64,
}

impl Direct {
    pub(crate) fn new(options: &Options, own_namespace: u32, diag: Option<OwnedFd>) -> Self {
        Self {
            configured: options.watch.clone(),
            watch_serve: options.watch_serve,
            table: Mutex::new(Table::new(own_namespace)),
            units: Mutex::new(Units::new(&options.watch_units)),
            users: Mutex::default(),
            own_namespace,
            changed: Notify::new(),
            stopping: Notify::new(),
            turns: Semaphore::new(AT_ONCE),
            legs: Legs::new(diag),
            written: AtomicU64::new(0),
            closes: Mutex::default(),
            over_budget: AtomicU64::new(0),
        }
    }

    /// Ends [`follow`].
    pub(crate) fn stop(&self) {
        self.stopping.notify_one();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    fn units(&self) -> MutexGuard<'_, Units> {
        lock(&self.units)
    }

    /// Whether anything is configured; serve ports are not.
    pub(crate) fn is_configured(&self) -> bool {
        !self.configured.is_empty() || !self.units().is_empty()
    }

    /// Configured ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> {
        self.configured.iter().map(|watched| watched.port)
    }

    /// Watches the configured ports and, unless disabled, these serve ports.
    ///
    /// # Errors
    /// The kernel side rejects the ports; the reason as a text.
    pub(crate) fn watch(&self, kernel: &mut dyn KernelView, serve: &[u16]) -> Result<(), String> {
        let serve = if self.watch_serve { serve } else { &[] };
        let wanted = WatchedPort::all(&self.configured, serve);
        lock(&self.closes).watch(&wanted.iter().map(|port| port.port).collect::<Vec<_>>());
        self.table().set_ports(wanted, t3_trace_host::clock::monotonic());
        self.apply(kernel)?;
        self.changed.notify_one();
        Ok(())
    }

    /// Tells the kernel side what to watch.
    fn apply(&self, kernel: &mut dyn KernelView) -> Result<(), String> {
        let connections = self.table().connections();
        let mut outgoing = self.units().outgoing();
        if let Some(min_age) = legs::min_age(&connections) {
            outgoing.min_age = if self.units().is_empty() { min_age } else { outgoing.min_age.min(min_age) };
        }
        kernel.watch_connections(&connections, &outgoing)
    }

    /// Sets the users of the serve ports, with their network namespaces.
    pub(crate) fn set_users<'a>(&self, users: impl Iterator<Item = (u32, &'a PortUser)>) {
        *lock(&self.users) = users.collect();
    }

    /// User of the routing table to whom the port of this connection belongs.
    fn user(&self, tuple: &ServeTuple) -> Option<String> {
        lock(&self.users).of(tuple, self.own_namespace).map(str::to_owned)
    }

    /// A connection belongs to a session of dispatch.
    pub(crate) fn carried(&self, tuple: ServeTuple, generation: Generation) {
        self.table().carried((tuple, generation));
    }

    /// Records by port and verdict.
    pub(crate) fn closes(&self) -> Closes {
        lock(&self.closes).clone()
    }

    /// Watched ports and counts.
    pub(crate) fn totals(&self, kernel: &dyn KernelView) -> DirectState {
        let unreported = kernel.unreported();
        DirectState {
            ports: self.table().ports(),
            written: self.written.load(Ordering::Relaxed),
            short: unreported.short,
            over_budget: self.over_budget.load(Ordering::Relaxed),
            lost: unreported.lost,
        }
    }

    /// The same, if any port or unit is watched.
    pub(crate) fn state(&self, kernel: &dyn KernelView) -> Option<DirectState> {
        let has_units = !self.units().is_empty();
        Some(self.totals(kernel)).filter(|totals| has_units || !totals.ports.is_empty())
    }
}
