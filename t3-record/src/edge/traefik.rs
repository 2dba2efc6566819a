//! One line of Traefik's access log, whichever format it is in. Never keeps a query string.

use std::net::IpAddr;

use super::BadLine;

/// One request as Traefik logged it, at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLine {
    /// The first address of [`Self::client_host`]: the browser's, if the edge was believed.
    pub first_address: Option<IpAddr>,
    /// The whole X-Forwarded-For that was left after Traefik's filter, else the TCP peer.
    pub client_host: String,
    /// Start of the request, in milliseconds since the epoch.
    pub start_ms: i64,
    /// `start_ms` is exact (JSON); otherwise it was cut to whole seconds (CLF), so up to 999 ms early.
    pub start_exact: bool,
    /// How long it took, a WebSocket's whole life included, in milliseconds.
    pub duration_ms: u64,
    /// Status that the browser got; 0 or 101 for a WebSocket; `None` when nothing was recorded.
    pub status: Option<u16>,
    /// Method.
    pub method: String,
    /// Path without its query.
    pub path: String,
    /// Router.
    pub router: Option<String>,
    /// The chosen upstream.
    pub service_url: Option<String>,
    /// Running number since the start of this Traefik process.
    pub request_count: Option<u64>,
    /// The kept `Cf-Ray` header (JSON only).
    pub ray: Option<String>,
}

impl AccessLine {
    /// The request's end, in milliseconds since the epoch.
    #[must_use]
    pub fn end_ms(&self) -> i64 {
        self.start_ms.saturating_add(i64::try_from(self.duration_ms).unwrap_or(i64::MAX))
    }
}

/// Reads one line, CLF or JSON.
///
/// # Errors
/// [`BadLine::Other`] for a line of another log, [`BadLine::Unreadable`] for a broken one.
pub fn parse(line: &str) -> Result<AccessLine, BadLine> {
    let _ = line;
    Err(BadLine::Other)
}
