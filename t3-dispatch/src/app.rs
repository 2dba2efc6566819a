//! What all connections share. Holds no logic.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use tokio::sync::Notify;

use crate::{case::Witness, lag, recent::Recent, relay, stop::Stop, table::Table, tcp, trace::Trace};

/// The times of one dispatch.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// For serve to accept a connection.
    pub connect: Duration,
    /// For serve to answer an upgrade.
    pub handshake: Duration,
    /// For a client to begin and finish its next request head.
    pub idle: Duration,
    /// From the word to stop to the end, at most.
    pub drain: Duration,
    /// Keepalive and user timeout of both legs.
    pub legs: tcp::Patience,
    /// What the relay waits for.
    pub relay: relay::Patience,
}

/// What all connections share.
pub struct App {
    /// The routing table of the moment.
    pub table: RwLock<Arc<Table>>,
    /// From where identity headers count.
    pub trusted: Vec<IpNet>,
    /// Times.
    pub times: Times,
    /// Writer of records.
    pub writer: t3_journal::Writer,
    /// t3-trace.
    pub trace: Trace,
    /// Our own delays.
    pub lag: Arc<lag::Meter>,
    /// The word to stop.
    pub stop: Arc<Stop>,
    /// Open cases.
    pub cases: Cases,
    /// Who was here a moment ago.
    pub recent: Mutex<Recent>,
    /// Endings of the current second.
    pub bursts: Mutex<crate::burst::Counter>,
    /// Sees each session as it is judged.
    pub witness: Option<Witness>,
    /// Where closing cases run, also when they are dropped by a thread of nobody's.
    pub runtime: tokio::runtime::Handle,
}

impl App {
    /// The routing table of the moment.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How many WebSockets have no record yet.
#[derive(Debug, Default)]
pub struct Cases {
    open: AtomicUsize,
    none_left: Notify,
}

impl Cases {
    /// One more.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// One has its record.
    pub fn closed(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.none_left.notify_waiters();
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Returns when there is none.
    pub async fn none(&self) {
        loop {
            let none_left = self.none_left.notified();
            if self.count() == 0 {
                return;
            }
            none_left.await;
        }
    }
}
