//! Reasons why a request is rejected before serve sees it.

/// Reason for rejecting a request before it is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Not from a trusted proxy: 403.
    Peer,
    /// No valid login, or a login without a route: 403.
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
}

impl RejectReason {
    pub const ALL: [Self; 7] = [
        Self::Peer,
        Self::Identity,
        Self::Origin,
        Self::Sessions,
        Self::UserSessions,
        Self::Rate,
        Self::Probes,
    ];

    /// Value in logs and metrics.
    #[must_use]
    pub const fn value(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Identity => "identity",
            Self::Origin => "origin",
            Self::Sessions => "sessions",
            Self::UserSessions => "user_sessions",
            Self::Rate => "rate",
            Self::Probes => "probes",
        }
    }
}
