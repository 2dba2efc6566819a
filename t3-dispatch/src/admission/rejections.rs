//! Rejections before an upgrade is forwarded: counted by reason, logged at most once a minute per
//! reason and user or network.
//!
//! Admission decides; this module only counts and logs.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use t3_record::evidence::Nanos;
use tokio::time::interval;

use crate::{admission::log_throttle::LogThrottle, metrics::reject_reason::RejectReason, sys::clock};

/// Window in which each pair of reason and user or network gets one line.
const WINDOW: Nanos = 60_000_000_000;
/// Maximum number of users and networks with separate log lines.
const MAX_KEYS: usize = 256;

/// Counters and log throttle of rejections.
#[derive(Debug)]
pub struct Rejections {
    counts: [AtomicU64; RejectReason::ALL.len()],
    throttle: Mutex<LogThrottle<(RejectReason, String)>>,
}

impl Default for Rejections {
    fn default() -> Self {
        let throttle = Mutex::new(LogThrottle::new(WINDOW, MAX_KEYS));
        Self { counts: Default::default(), throttle }
    }
}

impl Rejections {
    /// Counts and logs a rejection. `who` is the user or network that the throttle applies to.
    pub fn record(&self, why: RejectReason, who: &str, line: fmt::Arguments<'_>) {
        self.counts[why as usize].fetch_add(1, Ordering::Relaxed);
        let logged = self
            .throttle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .check((why, who.to_owned()), clock::now());
        if let Some(suppressed) = logged {
            let suppressed = (suppressed > 0).then_some(suppressed);
            tracing::warn!(refused = why.value(), who, suppressed, "{line}");
        }
    }

    /// Rejections per reason since the start.
    #[must_use]
    pub fn counts(&self) -> [u64; RejectReason::ALL.len()] {
        RejectReason::ALL.map(|why| self.count(why))
    }

    /// Rejections for this reason since the start.
    #[must_use]
    pub fn count(&self, why: RejectReason) -> u64 {
        self.counts[why as usize].load(Ordering::Relaxed)
    }

    /// Logs the number of lines suppressed up to `now`.
    pub fn sum_up(&self, now: Nanos) {
        let overdue = self.throttle.lock().unwrap_or_else(PoisonError::into_inner).take_suppressed(now);
        for (place, suppressed) in overdue {
            match place {
                Some((why, who)) => {
                    tracing::warn!(refused = why.value(), who, suppressed, "similar rejections suppressed");
                }
                None => tracing::warn!(suppressed, "similar rejections suppressed, for several reasons"),
            }
        }
    }
}

/// Logs the suppressed counts periodically, so that the end of a flood is logged, too.
pub async fn sum_up(rejections: std::sync::Arc<Rejections>) {
    let mut ticks = interval(Duration::from_secs(10));
    loop {
        ticks.tick().await;
        rejections.sum_up(clock::now());
    }
}

/// Returns the network of a peer, the key of the log throttle: its /24, or /64 for IPv6.
#[must_use]
pub fn network(peer: IpAddr) -> String {
    let peer = peer.to_canonical();
    let bits = if peer.is_ipv4() { 24 } else { 64 };
    IpNet::new(peer, bits).map_or_else(|_| peer.to_string(), |network| network.trunc().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_value() {
        let rejections = Rejections::default();
        for (index, why) in RejectReason::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index);
            for _ in 0..=index {
                rejections.record(why, "x", format_args!("test"));
            }
        }
        let mut words: Vec<&str> = RejectReason::ALL.map(RejectReason::value).into();
        for (index, why) in RejectReason::ALL.into_iter().enumerate() {
            assert_eq!(rejections.count(why), index as u64 + 1);
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), RejectReason::ALL.len());
    }

    #[test]
    fn peers_are_distinguished_by_network() {
        for (peer, expected) in [
            ("192.0.2.17", "192.0.2.0/24"),
            ("::ffff:192.0.2.17", "192.0.2.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(network(peer.parse().unwrap()), expected);
        }
    }
}
