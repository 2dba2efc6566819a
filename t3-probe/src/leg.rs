//! Probe legs and their timeouts. Plain data.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderValue, Uri};
use t3_http_client::Endpoint;
use t3_record::probe::Way;

/// Source of a leg's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// DNS over HTTPS, independent of the local resolver.
    Doh(Uri),
    Pinned(SocketAddr),
    /// Local resolver.
    System,
}

/// A probe leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Value of the label `leg`.
    pub name: String,
    pub way: Way,
    /// URL to connect to. `wss` and `https` mean TLS with the host's name in SNI and certificate.
    pub url: Uri,
    pub address: Address,
    /// Value of `Authorization`; cannot be printed.
    pub authorization: Option<HeaderValue>,
}

impl Leg {
    /// Host, port and TLS of the URL.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint<'_> {
        Endpoint::of(&self.url)
    }
}

/// Timeouts of all legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Time from an answered ping to the next, and between two requests to a serve.
    pub ping_interval: Duration,
    /// Timeout for the answers of a ping, or for a response.
    pub response_timeout: Duration,
    /// Timeout for establishing a leg, all phases together.
    pub connect_timeout: Duration,
    /// Delay before the next attempt, times the disconnects in a row.
    pub backoff_step: Duration,
    /// Limit of that delay.
    pub max_backoff: Duration,
    /// An echo or response that takes longer makes the leg slow.
    pub slow_threshold: Duration,
}

/// Preset of the ping interval and the timeout for its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Profile {
    /// A browser gives up 5 to 10 s after the path stalls; a stall of 3 s is slow here, and one of
    /// 7 s a disconnect.
    #[default]
    Browser,
    /// The times of the Python prober, to compare with its data.
    Python,
}

impl Profile {
    #[must_use]
    pub const fn ping_interval(self) -> Duration {
        Duration::from_secs(match self {
            Self::Browser => 2,
            Self::Python => 10,
        })
    }

    #[must_use]
    pub const fn response_timeout(self) -> Duration {
        Duration::from_secs(match self {
            Self::Browser => 5,
            Self::Python => 20,
        })
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let profile = Profile::default();
        Self {
            ping_interval: profile.ping_interval(),
            response_timeout: profile.response_timeout(),
            connect_timeout: Duration::from_secs(15),
            backoff_step: Duration::from_secs(3),
            max_backoff: Duration::from_secs(30),
            slow_threshold: Duration::from_secs(1),
        }
    }
}

impl Timeouts {
    /// Delay before the attempt that follows `failures` disconnects in a row.
    #[must_use]
    pub fn backoff(&self, failures: u32) -> Duration {
        self.backoff_step.saturating_mul(failures).min(self.max_backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_by_three_seconds_up_to_thirty() {
        let timeouts = Timeouts::default();
        let seconds = |failures| timeouts.backoff(failures).as_secs();
        assert_eq!([1, 2, 9, 10, 11, 1_000].map(seconds), [3, 6, 27, 30, 30, 30]);
        assert_eq!(seconds(u32::MAX), 30);
    }
}
