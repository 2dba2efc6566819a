//! What all connections share. Holds no logic.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    admission::{Gate, rejections::Refusals},
    evidence::client::Trace,
    http::guard,
    metrics::Metrics,
    pages::Probes,
    pairing::Pairing,
    record::recorder::Recorder,
    relay,
    routing::table::Table,
    shutdown::{in_flight::InFlight, signal::Stop},
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
    /// t3-trace.
    pub trace: Trace,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The word to stop.
    pub stop: Arc<Stop>,
    /// Writes the records of sessions.
    pub recorder: Arc<Recorder>,
    /// Connections of clients that speak HTTP; upgraded ones do not count.
    pub connections: InFlight,
    /// What an upgrade has to pass.
    pub gate: Gate,
    /// Who was turned away.
    pub refusals: Refusals,
    /// Connected probes.
    pub probes: Probes,
    /// Whether pages are made installable.
    pub install: bool,
}

impl App {
    /// The routing table of the moment.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}
