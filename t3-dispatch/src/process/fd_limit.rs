//! Limit on open file descriptors: raises the soft limit to the hard limit, and lowers the limits
//! on sessions and connections to it. Each of them needs two descriptors.

use std::num::{NonZeroU16, NonZeroUsize};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{cli::LimitOptions, sys::descriptors};

/// Raises the limit on open file descriptors to its maximum; logs a failure. Returns the limit,
/// `None` for unlimited.
pub fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(limit = limit.current, "cannot raise the limit on open file descriptors: {error}");
            limit.current
        }
    }
}

/// Lowers the limits to what `descriptors` allow, and logs a warning: otherwise one
/// user could take the descriptors of all.
pub fn fit(limits: &mut LimitOptions, probes: NonZeroU16, descriptors: Option<u64>) {
    let Some(descriptors) = descriptors else { return };
    let allowed = (limits.max_sessions, limits.max_connections);
    let available = descriptors - descriptors::reserve(descriptors);
    if needed(allowed, probes) <= available.into() {
        return;
    }
    // Each takes two descriptors: HTTP connections get up to half of them, sessions the rest.
    limits.max_connections = limits.max_connections.min(at_least_one(available / 4));
    let rest = available.saturating_sub(2 * limits.max_connections.get() as u64);
    limits.max_sessions = limits.max_sessions.min(at_least_one(rest / 2));
    limits.max_sessions_per_user = limits.max_sessions_per_user.min(part(limits.max_sessions));
    limits.max_requests_per_user = limits.max_requests_per_user.min(part(limits.max_connections));
    // One untrusted peer must not take the places of all.
    let untrusted = part(limits.max_connections);
    limits.max_connections_per_address = limits.max_connections_per_address.min(part(untrusted));
    limits.max_connections_per_network =
        limits.max_connections_per_network.min(at_least_one(untrusted.get() as u64 / 2));
    tracing::warn!(
        "the limit of {descriptors} open file descriptors is too low: --max-sessions allows {}, now {}; \
         --max-connections allows {}, now {}; raise LimitNOFILE= or lower these limits",
        allowed.0,
        limits.max_sessions,
        allowed.1,
        limits.max_connections
    );
}

/// Descriptors for these sessions and connections: both legs of each, and one per probe.
fn needed((sessions, connections): (NonZeroUsize, NonZeroUsize), probes: NonZeroU16) -> u128 {
    2 * (sessions.get() as u128 + connections.get() as u128) + u128::from(probes.get())
}

/// Part of a limit that one user may have.
fn part(limit: NonZeroUsize) -> NonZeroUsize {
    at_least_one(limit.get() as u64 / 4)
}

fn at_least_one(count: u64) -> NonZeroUsize {
    usize::try_from(count).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn fitted(more: &[&str], descriptors: Option<u64>) -> [usize; 6] {
        let options = Cli::parse_from([&["t3-dispatch", "serve"], more].concat()).command.options();
        let mut limits = options.limits;
        fit(&mut limits, options.pages.max_probes, descriptors);
        [
            limits.max_sessions.get(),
            limits.max_sessions_per_user.get(),
            limits.max_connections.get(),
            limits.max_requests_per_user.get(),
            limits.max_connections_per_address.get(),
            limits.max_connections_per_network.get(),
        ]
    }

    #[test]
    fn limits_are_lowered_to_the_descriptors() {
        let defaults = [4096, 256, 2048, 256, 64, 256];
        for (descriptors, expected) in [
            (None, defaults),
            (Some(65_536), defaults),
            (Some(12_480), defaults),
            (Some(12_000), [3888, 256, 2048, 256, 64, 256]),
            (Some(1024), [240, 60, 240, 60, 15, 30]),
            (Some(300), [67, 16, 67, 16, 4, 8]),
            (Some(3), [1, 1, 1, 1, 1, 1]),
        ] {
            assert_eq!(fitted(&[], descriptors), expected, "{descriptors:?}");
        }
        assert_eq!(
            fitted(&["--max-sessions", "1", "--max-connections", "2"], Some(300)),
            [1, 256, 2, 256, 64, 256]
        );
        let many = ["--max-sessions", "18446744073709551615"];
        assert_eq!(fitted(&many, Some(65_536)), [30_656, 256, 2048, 256, 64, 256]);
    }
}
