//! What all connections share. Holds no logic.

use std::sync::{Arc, PoisonError, RwLock};

use ipnet::IpNet;

use crate::{
    admission::{Gate, rejections::Refusals},
    evidence::client::Trace,
    metrics::Metrics,
    pages::Probes,
    pairing::Pairing,
    record::recorder::Recorder,
    routing::table::Table,
    settings::{HttpSettings, Timeouts},
    shutdown::{in_flight::InFlight, signal::Stop},
    upstream::pool::Pool,
};

/// What all connections share.
pub struct App {
    /// The routing table of the moment.
    pub table: RwLock<Arc<Table>>,
    /// From where identity headers count.
    pub trusted: Vec<IpNet>,
    /// Sessions for browsers that have none; nothing when that is off.
    pub pairing: Option<Pairing>,
    /// Times.
    pub times: Timeouts,
    /// HTTP.
    pub http: HttpSettings,
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
