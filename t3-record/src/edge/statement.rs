//! Statement of a hop in front of dispatch about the end of one session: which side ended it, as
//! that hop observed its own two connections.

use std::net::IpAddr;

use super::text::redacted;
use crate::vocabulary::vocabulary;

vocabulary! {
    /// Writer of a statement.
    Witness {
        /// Cloudflare's edge (Logpush, `websocket_analytics`).
        Cloudflare = "cloudflare",
        /// Envoy in place of Traefik.
        Envoy = "envoy",
        /// HAProxy in place of Traefik.
        Haproxy = "haproxy",
    }
}

impl Witness {
    /// Name for texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cloudflare => "Cloudflare",
            Self::Envoy => "Envoy",
            Self::Haproxy => "HAProxy",
        }
    }
}

vocabulary! {
    /// Side that ended the session, seen from the hop.
    Closer {
        /// The connection towards the browser ended first.
        Downstream = "downstream",
        /// The connection towards serve ended first.
        Upstream = "upstream",
        /// The hop ended the session.
        Itself = "itself",
        /// The hop ended the session after a time limit; the silent side is not stated.
        TimedOut = "timed_out",
        /// Both sides, or contradictory values.
        Both = "both",
        /// Not stated.
        Unstated = "unstated",
    }
}

/// One line about the end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Writer.
    pub witness: Witness,
    /// Start of the request, in milliseconds since the epoch.
    pub start_ms: Option<i64>,
    /// End of the session, in milliseconds since the epoch.
    pub end_ms: i64,
    /// Address of the client.
    pub address: Option<IpAddr>,
    /// Path without its query.
    pub path: Option<String>,
    /// Ray of the upgrade request, with or without the data centre.
    pub ray: Option<String>,
    /// Status of the response.
    pub status: Option<u16>,
    /// Side that ended the session.
    pub closer: Closer,
    /// The deciding values as written, each after its name: `ConnectionCloseSource downstream`.
    pub values: String,
}

impl Statement {
    /// Duration in milliseconds, if the start is known.
    #[must_use]
    pub fn duration_ms(&self) -> Option<u64> {
        self.start_ms.and_then(|start| u64::try_from(self.end_ms.saturating_sub(start)).ok())
    }
}

/// Longest value shown, in characters.
const SHOWN: usize = 120;

/// A value for [`Statement::values`]: redacted and shortened.
pub(super) fn shown(value: &str) -> String {
    redacted(value).chars().take(SHOWN).collect()
}

/// The one side that several values state; contradictory values are [`Closer::Both`].
pub(super) fn agreed(closers: impl IntoIterator<Item = Closer>) -> Closer {
    let mut stated = closers.into_iter().filter(|closer| *closer != Closer::Unstated);
    let first = stated.next().unwrap_or(Closer::Unstated);
    if stated.all(|other| other == first) { first } else { Closer::Both }
}

/// Identifier of a ray without the data centre, in lower case.
#[must_use]
pub fn ray_id(ray: &str) -> String {
    ray.split('-').next().unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_agree_or_state_nothing() {
        use Closer::{Both, Downstream, Unstated, Upstream};
        for (values, closer) in [
            (&[][..], Unstated),
            (&[Unstated], Unstated),
            (&[Unstated, Upstream], Upstream),
            (&[Upstream, Unstated, Upstream], Upstream),
            (&[Upstream, Downstream], Both),
            (&[Both, Downstream], Both),
        ] {
            assert_eq!(agreed(values.iter().copied()), closer, "{values:?}");
        }
    }

    #[test]
    fn a_ray_is_compared_without_its_data_centre() {
        assert_eq!(ray_id("8C1F0000abcd1234-LHR"), ray_id("8c1f0000abcd1234"));
        assert_ne!(ray_id("8c1f0000abcd1235"), ray_id("8c1f0000abcd1234"));
    }
}
