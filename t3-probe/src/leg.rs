//! What a leg is, and the timeouts it keeps. Plain data.

use std::{net::SocketAddr, time::Duration};

use http::Uri;
use t3_http_client::Endpoint;
use t3_record::probe::Way;

/// Where a leg's address comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// From DNS over HTTPS, whatever this machine's own DNS says.
    Doh(Uri),
    /// This one.
    Pinned(SocketAddr),
    /// From this machine's own resolver.
    System,
}

/// One leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Its name: the label `leg`.
    pub name: String,
    /// Its way.
    pub way: Way,
    /// What is asked for. `wss` and `https` mean TLS with the host's name in SNI and certificate.
    pub url: Uri,
    /// Where that is.
    pub address: Address,
}

impl Leg {
    /// Host, port and TLS of the URL.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint<'_> {
        Endpoint::of(&self.url)
    }
}

/// The timeouts of all legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From an echo to the next ping, and between two questions to a serve.
    pub beat: Duration,
    /// For an echo or an answer: the browser's own watchdog.
    pub answer: Duration,
    /// For everything up to an established connection.
    pub connect: Duration,
    /// From a disconnect to the next attempt: this much more each time.
    pub back_off: Duration,
    /// But no more than this.
    pub back_off_most: Duration,
    /// An answer slower than this is a stall.
    pub slow: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(10),
            answer: Duration::from_secs(20),
            connect: Duration::from_secs(15),
            back_off: Duration::from_secs(3),
            back_off_most: Duration::from_secs(30),
            slow: Duration::from_secs(1),
        }
    }
}

impl Timeouts {
    /// How long to wait before the attempt that follows `failures` disconnects in a row.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        self.back_off.saturating_mul(failures).min(self.back_off_most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_by_three_seconds_up_to_thirty() {
        let timeouts = Timeouts::default();
        let seconds = |failures| timeouts.pause(failures).as_secs();
        assert_eq!([1, 2, 9, 10, 11, 1_000].map(seconds), [3, 6, 27, 30, 30, 30]);
        assert_eq!(seconds(u32::MAX), 30);
    }
}
