//! Limit on open file descriptors: raises the soft limit to the hard limit and warns if that is too
//! low for --max-sessions. Each WebSocket needs two descriptors.

use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for listeners, journald, t3-trace and plain HTTP requests.
const OTHERS: u64 = 256;

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

/// Logs a warning when `sessions` need more than `descriptors`.
pub fn check_descriptors(sessions: NonZeroUsize, descriptors: Option<u64>) {
    if let Some(room) = too_low(sessions, descriptors) {
        let descriptors = descriptors.unwrap_or_default();
        tracing::warn!(
            "the limit of {descriptors} open file descriptors allows about {room} WebSockets, --max-sessions allows {sessions}: \
             raise LimitNOFILE= or lower --max-sessions"
        );
    }
}

/// Returns the number of sessions that the limit allows, if fewer than `sessions`.
fn too_low(sessions: NonZeroUsize, descriptors: Option<u64>) -> Option<u64> {
    let room = descriptors?.saturating_sub(OTHERS) / 2;
    (room < sessions.get() as u64).then_some(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_needs_two_descriptors_and_some_are_reserved() {
        for (sessions, descriptors, expected) in [
            (8192, None, None),
            (8192, Some(524_288), None),
            (8192, Some(20_000), None),
            (8192, Some(16_640), None),
            (8192, Some(16_639), Some(8191)),
            (8192, Some(1024), Some(384)),
            (1, Some(100), Some(0)),
        ] {
            assert_eq!(
                too_low(NonZeroUsize::new(sessions).unwrap(), descriptors),
                expected,
                "{descriptors:?}"
            );
        }
    }
}
