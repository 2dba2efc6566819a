//! Reserve of file descriptors. A new descriptor has the lowest free number (socket(2)), so its
//! number tells how many are left.
//!
//! Clients leave descriptors for connections to serve, and both leave some for the routing table,
//! the evidence socket, journald and metrics.

use std::{
    os::fd::AsRawFd,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::process::{Resource, getrlimit};
use t3_record::evidence::Nanos;

use crate::sys::clock;

/// Age up to which the limit is not read again: prlimit(1) can change it at any time.
const LIMIT_AGE: Nanos = 1_000_000_000;

/// Purpose of a new descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Connection of a client.
    Client,
    /// Connection to serve.
    Upstream,
}

/// Returns whether a new descriptor leaves the reserve alone.
#[must_use]
pub fn leaves_reserve(descriptor: &impl AsRawFd, purpose: Purpose) -> bool {
    let limit = limit(clock::now());
    u64::try_from(descriptor.as_raw_fd()).is_ok_and(|number| number < below(limit, purpose))
}

/// Soft limit of descriptors; `u64::MAX` without one.
fn limit(now: Nanos) -> u64 {
    static READ_AT: AtomicU64 = AtomicU64::new(0);
    static LIMIT: AtomicU64 = AtomicU64::new(0);
    let read_at = READ_AT.load(Ordering::Acquire);
    if read_at > 0 && now.saturating_sub(read_at) < LIMIT_AGE {
        return LIMIT.load(Ordering::Relaxed);
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    LIMIT.store(limit, Ordering::Relaxed);
    READ_AT.store(now, Ordering::Release);
    limit
}

/// Maximum number of descriptors that clients leave for connections to serve.
const FOR_UPSTREAM: u64 = 1024;

/// Returns the number of descriptors that are for neither purpose.
#[must_use]
pub fn reserve(limit: u64) -> u64 {
    (limit / 16).clamp(32, 128).min(limit / 2)
}

fn below(limit: u64, purpose: Purpose) -> u64 {
    let rest = limit - reserve(limit);
    match purpose {
        Purpose::Client => rest - (rest / 4).min(FOR_UPSTREAM),
        Purpose::Upstream => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_more_than_upstream_connections() {
        for (limit, client, upstream) in [
            (65_536, 64_384, 65_408),
            (20_000, 18_848, 19_872),
            (1024, 720, 960),
            (300, 201, 268),
            (64, 24, 32),
            (10, 4, 5),
            (0, 0, 0),
        ] {
            assert_eq!(
                (below(limit, Purpose::Client), below(limit, Purpose::Upstream)),
                (client, upstream),
                "{limit}"
            );
        }
    }

    #[test]
    fn the_number_of_a_descriptor_decides() {
        assert!(leaves_reserve(&std::io::stderr(), Purpose::Client));
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(i32::MAX as u64);
        let last = i32::try_from(limit).unwrap_or(i32::MAX) - 1;
        assert!(!leaves_reserve(&last, Purpose::Client) || limit >= i32::MAX as u64);
    }
}
