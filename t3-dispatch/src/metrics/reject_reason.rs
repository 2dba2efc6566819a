//! Reasons why a request is rejected before serve sees it.

/// Reason for rejecting a request before it is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// For a host that is not one of `--host`: 421.
    Host,
    /// Not from a trusted proxy: 403.
    Peer,
    /// No valid login: 400, or 403 if it has no route.
    Identity,
    /// Upgrade from a page of another origin: 403.
    Origin,
    /// Too many WebSockets in total: 503.
    Sessions,
    /// Too many WebSockets of one user: 429.
    UserSessions,
    /// One user opens WebSockets too fast: 429.
    Rate,
    /// Too many open probes: 503.
    Probes,
    /// Too many open probes of one address: 429.
    AddressProbes,
    /// A probe without the token: 401.
    ProbeToken,
    /// Too many requests of one user in flight: 429.
    UserRequests,
    /// Too many connections in total: 503.
    Connections,
    /// Too many connections of untrusted peers: 503.
    UntrustedConnections,
    /// Too many connections of one untrusted address: 429.
    AddressConnections,
    /// Too many connections of one untrusted network: 429.
    NetworkConnections,
    /// Only the reserve of file descriptors is left: 503.
    Descriptors,
    /// The port of serve belongs to another user: 502.
    ForeignListener,
}

impl RejectReason {
    pub const ALL: [Self; 17] = [
        Self::Host,
        Self::Peer,
        Self::Identity,
        Self::Origin,
        Self::Sessions,
        Self::UserSessions,
        Self::Rate,
        Self::Probes,
        Self::AddressProbes,
        Self::ProbeToken,
        Self::UserRequests,
        Self::Connections,
        Self::UntrustedConnections,
        Self::AddressConnections,
        Self::NetworkConnections,
        Self::Descriptors,
        Self::ForeignListener,
    ];

    /// Value in logs and metrics.
    #[must_use]
    pub const fn value(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Peer => "peer",
            Self::Identity => "identity",
            Self::Origin => "origin",
            Self::Sessions => "sessions",
            Self::UserSessions => "user_sessions",
            Self::Rate => "rate",
            Self::Probes => "probes",
            Self::AddressProbes => "address_probes",
            Self::ProbeToken => "probe_token",
            Self::UserRequests => "user_requests",
            Self::Connections => "connections",
            Self::UntrustedConnections => "untrusted_connections",
            Self::AddressConnections => "address_connections",
            Self::NetworkConnections => "network_connections",
            Self::Descriptors => "descriptors",
            Self::ForeignListener => "foreign_listener",
        }
    }
}
