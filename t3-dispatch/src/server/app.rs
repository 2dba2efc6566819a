//! State that all connections share. Contains no logic.

use std::sync::{Arc, PoisonError, RwLock};

use crate::{
    admission::{connections::ConnectionQuota, quota::UserQuota, rejections::Rejections},
    evidence::client::EvidenceClient,
    metrics::{
        Metrics,
        gauges::{Gauges, HEARTBEAT_DUE},
        labels::{Label as _, Limit},
    },
    pages::Pages,
    pairing::Pairing,
    proxy::{http::HttpForwarder, websocket::WebsocketProxy},
    record::recorder::Recorder,
    routing::{table::Table, trust::Trust},
    server::overload::Refuser,
    settings::{HttpSettings, Timeouts},
    shutdown::{in_flight::InFlight, signal::ShutdownSignal},
    sys::{clock, socket_owner::SocketOwners},
    upstream::pool::Pool,
};

/// State that all connections share.
pub struct App {
    pub table: RwLock<Arc<Table>>,
    pub trust: Trust,
    /// Owners of sockets of this host.
    pub sockets: Arc<SocketOwners>,
    /// Creates sessions for browsers without one; `None` with --no-pairing.
    pub pairing: Option<Arc<Pairing>>,
    pub timeouts: Timeouts,
    pub http: HttpSettings,
    pub pool: Arc<Pool>,
    /// Client of t3-trace's evidence socket.
    pub evidence: EvidenceClient,
    pub metrics: Arc<Metrics>,
    pub shutdown: Arc<ShutdownSignal>,
    /// Writes the records of sessions.
    pub recorder: Arc<Recorder>,
    /// Open HTTP connections of clients, without upgraded ones.
    pub connections: InFlight,
    /// Limits on these connections.
    pub quota: Arc<ConnectionQuota>,
    /// Requests in flight per user.
    pub requests: Arc<UserQuota>,
    pub rejections: Arc<Rejections>,
    pub refuser: Refuser,
    pub websocket: Arc<WebsocketProxy>,
    pub forwarder: HttpForwarder,
    pub pages: Pages,
}

impl App {
    /// Returns the current routing table.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the values of the gauges on the metrics page.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let journal = self.recorder.writer.stats();
        Gauges {
            records_written: journal.written,
            records_dropped: journal.dropped,
            records_rejected: journal.rejected,
            records_waiting: journal.waiting,
            worst_lag: self.recorder.lag.worst().map(|delay| delay.late),
            evidence_connected: self.evidence.is_connected(),
            journal: self.evidence.journal(),
            without_heartbeat: self.evidence.without_heartbeat(
                clock::now().saturating_sub(HEARTBEAT_DUE.as_nanos().try_into().unwrap_or(u64::MAX)),
            ),
            connections: self.quota.in_use(),
            requests: self.requests.in_use().0,
            probes: self.pages.echo.count(),
            lines_suppressed: self.rejections.suppressed(),
            limits: self.limits(),
            logins: self.table().len(),
            rejections: self.rejections.counts(),
        }
    }

    /// Limits in effect, indexed by [`Limit`].
    fn limits(&self) -> [u64; Limit::COUNT] {
        let connections = self.quota.limits();
        let sessions = self.websocket.admission.limits();
        let mut limits = [0; Limit::COUNT];
        for (limit, value) in [
            (Limit::Connections, connections.total),
            (Limit::Untrusted, connections.untrusted()),
            (Limit::UserRequests, self.requests.limits().1),
            (Limit::Sessions, sessions.0),
            (Limit::UserSessions, sessions.1),
            (Limit::Probes, self.pages.echo.max()),
        ] {
            limits[limit.index()] = value as u64;
        }
        limits
    }
}
