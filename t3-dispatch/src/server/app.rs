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

use crate::{
    admission::{Gate, rejections::Refusals},
    evidence::{client::Trace, loop_lag},
    http::guard,
    metrics::Metrics,
    pages::Probes,
    pairing::Pairing,
    record::{close::Witness, reconnects::Recent},
    relay,
    routing::table::Table,
    shutdown::signal::Stop,
    sys::tcp,
    upstream::pool::Pool,
};

/// The times of one dispatch.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// For serve to accept a connection.
    pub connect: Duration,
    /// For serve to answer an upgrade.
    pub handshake: Duration,
    /// From the word to stop to the end, at most.
    pub drain: Duration,
    /// Keepalive and user timeout of both legs.
    pub legs: tcp::Patience,
    /// What the relay waits for.
    pub relay: relay::Patience,
}

/// What HTTP connections may be like.
#[derive(Debug, Clone, Copy)]
pub struct Http {
    /// Requests.
    pub limits: guard::Limits,
    /// Clients.
    pub patience: guard::Patience,
    /// For serve to begin its answer, once it has the whole request.
    pub response: Duration,
}

/// What all connections share.
pub struct App {
    /// The routing table of the moment.
    pub table: RwLock<Arc<Table>>,
    /// From where identity headers count.
    pub trusted: Vec<IpNet>,
    /// Sessions for browsers that have none; nothing when that is off.
    pub pairing: Option<Pairing>,
    /// Times.
    pub times: Times,
    /// HTTP.
    pub http: Http,
    /// Idle connections to serves.
    pub pool: Arc<Pool>,
    /// Writer of records.
    pub writer: t3_journal::Writer,
    /// t3-trace.
    pub trace: Trace,
    /// What is counted.
    pub metrics: Metrics,
    /// Our own delays.
    pub lag: Arc<loop_lag::Meter>,
    /// The word to stop.
    pub stop: Arc<Stop>,
    /// Open cases.
    pub cases: Cases,
    /// Connections of clients that speak HTTP, a WebSocket no more.
    pub connections: Cases,
    /// What an upgrade has to pass.
    pub gate: Gate,
    /// Who was turned away.
    pub refusals: Refusals,
    /// Connected probes.
    pub probes: Probes,
    /// Whether pages are made installable.
    pub install: bool,
    /// Who was here a moment ago.
    pub recent: Mutex<Recent>,
    /// Endings of the current second.
    pub bursts: Mutex<crate::record::burst::Counter>,
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

/// How many there are of something that ends: WebSockets without a record, connections.
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

    /// One has ended: has its record.
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
