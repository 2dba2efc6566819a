//! Reasons why a request is rejected before serve sees it.

/// Why a request was turned away before serve was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Not from a trusted proxy: 403.
    Peer,
    /// From a trusted proxy, for nobody in the routing table: 403.
    Identity,
    /// A WebSocket asked for by a page of another origin: 403.
    Origin,
    /// Too many WebSockets in all: 503.
    Sessions,
    /// Too many WebSockets of one user: 429.
    UserSessions,
    /// One user opens WebSockets too fast: 429.
    Rate,
    /// Too many probes at once: 503.
    Probes,
}

impl RejectReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Peer,
        Self::Identity,
        Self::Origin,
        Self::Sessions,
        Self::UserSessions,
        Self::Rate,
        Self::Probes,
    ];

    /// The word for it in logs and metrics.
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
