//! One death of a leg, as t3-probe logs it in a line of JSON and `t3-trace explain` reads it back.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Way;
use crate::vocabulary::vocabulary;

vocabulary! {
    /// How far a leg had come.
    Phase {
        /// Asking for the address.
        Dns = "dns",
        /// Connecting.
        Tcp = "tcp",
        /// The TLS handshake, certificate included.
        Tls = "tls",
        /// The HTTP request, up to the answer's head.
        Upgrade = "upgrade",
        /// Established: the echo of a ping was due, or the connection idle.
        Echo = "echo",
    }
}

/// Why a leg died: the label `reason` of `t3probe_disconnects_total`. The set is closed but for the
/// status of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// It could not be established: the phase says where.
    ConnectFailed,
    /// It was not established in time.
    ConnectTimeout,
    /// A ping was not answered in time.
    RttTimeout,
    /// The connection broke with an error, a reset for instance.
    IoError,
    /// The other side sent a close frame.
    ClosedClose,
    /// The connection ended without one.
    ClosedClosed,
    /// The other side broke the WebSocket protocol.
    ClosedError,
    /// A binary message came where the echo of a text was due.
    ClosedBinary,
    /// HTTP gave another status than the one that was due.
    Http(u16),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::RttTimeout => "rtt_timeout",
            Self::IoError => "io_error",
            Self::ClosedClose => "closed_close",
            Self::ClosedClosed => "closed_closed",
            Self::ClosedError => "closed_error",
            Self::ClosedBinary => "closed_binary",
            Self::Http(status) => return write!(f, "http_{status}"),
        })
    }
}

/// Not a reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a reason of t3-probe's")]
pub struct UnknownReason(pub String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        let plain = [
            Self::ConnectFailed,
            Self::ConnectTimeout,
            Self::RttTimeout,
            Self::IoError,
            Self::ClosedClose,
            Self::ClosedClosed,
            Self::ClosedError,
            Self::ClosedBinary,
        ];
        let status =
            || text.strip_prefix("http_")?.parse().ok().filter(|status| (100..1000).contains(status));
        plain
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

/// The word that begins each line, so that lines can be picked from any log.
pub const EVENT: &str = "t3probe leg died";

/// One death.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// [`EVENT`].
    pub event: String,
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// The leg's name, as in the label `leg`.
    pub leg: String,
    /// Its way.
    pub way: Way,
    /// Why.
    pub reason: Reason,
    /// How far it had come.
    pub phase: Phase,
    /// Milliseconds since that phase began; in the phase `echo`, since the unanswered ping, if
    /// there is one.
    pub phase_ms: u64,
    /// Milliseconds it had been established; absent when it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// The address that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What the system or the peer said, in a line.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub detail: String,
}

impl Disconnect {
    /// Reads a line back; `None` when the line is something else.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str::<Self>(line.trim()).ok().filter(|disconnect| disconnect.event == EVENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_back() {
        for text in [
            "connect_failed",
            "connect_timeout",
            "rtt_timeout",
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
    }

    #[test]
    fn a_line_reads_back_and_others_are_no_deaths() {
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
