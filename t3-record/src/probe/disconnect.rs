//! Disconnect of a probe leg: written by t3-probe as a line of JSON, read by `t3-trace explain`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Way;
use crate::vocabulary::vocabulary;

vocabulary! {
    /// Phase that a leg had reached.
    Phase {
        /// Resolving the address.
        Dns = "dns",
        /// Connecting.
        Tcp = "tcp",
        /// The TLS handshake with the certificate check.
        Tls = "tls",
        /// The HTTP request, up to the head of the response.
        Upgrade = "upgrade",
        /// Established: waiting for an echo, or idle.
        Echo = "echo",
    }
}

/// Cause of a disconnect: the label `reason` of `t3probe_disconnects_total`. A closed set, except
/// for the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Not established; the phase has the step.
    ConnectFailed,
    /// Not established in time.
    ConnectTimeout,
    /// No echo or response in time.
    RttTimeout,
    /// The text was echoed in time, but the RFC 6455 Ping has no Pong in time.
    PongTimeout,
    /// An error of the connection, for example a reset.
    IoError,
    /// The peer sent a Close frame.
    ClosedClose,
    /// The connection ended without a Close frame.
    ClosedClosed,
    /// The peer violated RFC 6455.
    ClosedError,
    /// A binary message in place of an echo.
    ClosedBinary,
    /// An unexpected HTTP status.
    Http(u16),
}

impl Reason {
    /// All reasons but the HTTP statuses.
    pub const PLAIN: [Self; 9] = [
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::RttTimeout,
        Self::PongTimeout,
        Self::IoError,
        Self::ClosedClose,
        Self::ClosedClosed,
        Self::ClosedError,
        Self::ClosedBinary,
    ];
    /// Statuses to expect on the path: token (401), no route (404), limits (429, 503), failures of
    /// Traefik (502, 504) or a serve (500), a rule (403) or a missing tunnel (530) of Cloudflare.
    pub const EXPECTED_STATUSES: [u16; 9] = [401, 403, 404, 429, 500, 502, 503, 504, 530];

    /// The reasons whose counters exist before their first event.
    pub fn expected() -> impl Iterator<Item = Self> {
        Self::PLAIN.into_iter().chain(Self::EXPECTED_STATUSES.map(Self::Http))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::RttTimeout => "rtt_timeout",
            Self::PongTimeout => "pong_timeout",
            Self::IoError => "io_error",
            Self::ClosedClose => "closed_close",
            Self::ClosedClosed => "closed_closed",
            Self::ClosedError => "closed_error",
            Self::ClosedBinary => "closed_binary",
            Self::Http(status) => return write!(f, "http_{status}"),
        })
    }
}

/// A word that is not a reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason {0:?}; see docs/PROBE.md")]
pub struct UnknownReason(pub String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        let status =
            || text.strip_prefix("http_")?.parse().ok().filter(|status| (100..1000).contains(status));
        Self::PLAIN
            .into_iter()
            .find(|reason| reason.to_string() == text)
            .or_else(|| status().map(Self::Http))
            .ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Value of `event`, by which the lines can be found in any log.
pub const EVENT: &str = "t3probe leg died";

/// Disconnect of a probe leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// [`EVENT`].
    pub event: String,
    /// Unix time of the disconnect, in milliseconds.
    pub at_ms: u64,
    /// Value of the label `leg`.
    pub leg: String,
    /// Path of the leg.
    pub way: Way,
    /// Cause.
    pub reason: Reason,
    /// Phase that it had reached.
    pub phase: Phase,
    /// Milliseconds since the phase began; in `echo`, since the unanswered ping, if any.
    pub phase_ms: u64,
    /// Milliseconds since it was established, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Address in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Error text of the system or the peer, one line.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub detail: String,
}

impl Disconnect {
    /// Parses a line; `None` for any other line.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str::<Self>(line.trim()).ok().filter(|disconnect| disconnect.event == EVENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_parsed_from_their_text() {
        for text in [
            "connect_failed",
            "connect_timeout",
            "rtt_timeout",
            "pong_timeout",
            "io_error",
            "closed_close",
            "closed_closed",
            "closed_error",
            "closed_binary",
            "http_502",
        ] {
            assert_eq!(text.parse::<Reason>().unwrap().to_string(), text);
        }
        for text in ["", "http_", "http_7", "http_70000", "closed_", "closed_x"] {
            assert!(text.parse::<Reason>().is_err(), "{text:?}");
        }
        for reason in Reason::expected() {
            assert_eq!(reason.to_string().parse(), Ok(reason));
        }
    }

    #[test]
    fn a_line_is_parsed_and_other_lines_are_ignored() {
        let disconnect = Disconnect {
            event: EVENT.to_owned(),
            at_ms: 1_700_000_000_123,
            leg: "cloudflare".to_owned(),
            way: Way::Cloudflare,
            reason: Reason::Http(502),
            phase: Phase::Upgrade,
            phase_ms: 40,
            age_ms: None,
            address: Some("203.0.113.7:443".to_owned()),
            detail: String::new(),
        };
        let line = serde_json::to_string(&disconnect).unwrap();
        assert_eq!(Disconnect::from_line(&line), Some(disconnect));
        for other in ["", "{}", "{\"event\":\"x\"}", &line.replace("died", "lives")] {
            assert_eq!(Disconnect::from_line(other), None);
        }
    }
}
