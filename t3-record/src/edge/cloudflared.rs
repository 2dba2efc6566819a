//! Log of cloudflared, text or JSON. Query strings are removed.

mod console;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    BadLine, LONGEST, ray,
    text::{redacted, unframed},
    time,
};
use crate::vocabulary::vocabulary;

vocabulary! {
    /// Level of a line.
    Level {
        /// Debug.
        Debug = "debug",
        /// Info.
        Info = "info",
        /// Warning.
        Warn = "warn",
        /// Error.
        Error = "error",
        /// Fatal or panic: the process ends.
        Fatal = "fatal",
    }
}

/// Event of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelKind {
    /// A tunnel connection was registered.
    Registered,
    /// A tunnel connection was unregistered cleanly.
    Unregistered,
    /// A tunnel connection was lost or taken down, with all sessions on it.
    ConnectionLost,
    /// The connector reconnects, or waits before it.
    Retrying,
    /// The connector gave up the connection, or exits.
    Terminated,
    /// A request failed, before its 101.
    RequestFailed {
        /// An upgrade to WebSocket.
        ws: bool,
        /// URL without the query, if logged.
        dest: Option<String>,
    },
    /// Copying a stream failed. For an established WebSocket only debug lines report it.
    CopyError,
    /// Anything else.
    Other,
}

/// A line of cloudflared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelLine {
    /// Time in milliseconds since the epoch; text lines have whole seconds only.
    pub at_ms: i64,
    /// Level.
    pub level: Level,
    /// Message without query strings; empty for unknown debug lines, which print headers.
    pub message: String,
    /// Key `error`, without query strings.
    pub error: Option<String>,
    /// Index of the tunnel connection, 0 to 3.
    pub conn_index: Option<u8>,
    /// Event.
    pub kind: TunnelKind,
    /// `cfRay`, in versions before 2024.2.1.
    pub ray: Option<String>,
}

/// Parses a line, text or JSON.
///
/// # Errors
/// [`BadLine::Other`] for a line of another log, [`BadLine::Unreadable`] for a broken one.
pub fn parse(line: &str) -> Result<TunnelLine, BadLine> {
    let line = unframed(line);
    if line.len() > LONGEST {
        return Err(BadLine::Unreadable("longer than 64 KiB"));
    }
    let raw = if line.starts_with('{') { json(line)? } else { console::parse(line)? };
    Ok(raw.into_line())
}

/// Parts of a line as written.
#[derive(Debug)]
struct Raw {
    at_ms: i64,
    level: Level,
    message: String,
    fields: BTreeMap<String, String>,
}

impl Raw {
    fn into_line(self) -> TunnelLine {
        let field = |key: &str| self.fields.get(key).map(String::as_str);
        let kind = self.kind();
        // Debug lines print requests with headers, including cookies.
        let kept = self.level != Level::Debug || kind != TunnelKind::Other;
        TunnelLine {
            at_ms: self.at_ms,
            level: self.level,
            message: if kept { redacted(&self.message) } else { String::new() },
            error: field("error").filter(|_| kept).map(redacted),
            conn_index: field("connIndex").and_then(|index| index.parse().ok()),
            ray: field("cfRay").and_then(ray),
            kind,
        }
    }

    fn kind(&self) -> TunnelKind {
        let message = self.message.as_str();
        let is = |known: &[&str]| known.iter().any(|known| message.starts_with(known));
        let field = |key: &str| self.fields.get(key).map(String::as_str);
        if is(COPIES) {
            TunnelKind::CopyError
        } else if is(REGISTERED) || (message.starts_with("Connection ") && message.ends_with(" registered")) {
            TunnelKind::Registered
        } else if is(UNREGISTERED) {
            TunnelKind::Unregistered
        } else if is(LOST) {
            TunnelKind::ConnectionLost
        } else if is(RETRYING) {
            TunnelKind::Retrying
        } else if is(TERMINATED) || self.level == Level::Fatal {
            TunnelKind::Terminated
        } else if is(FAILED)
            || (message.is_empty() && field("error").is_some() && field("ingressRule").is_some())
        {
            let dest = field("dest").map(|dest| dest.split_once('?').map_or(dest, |(dest, _)| dest));
            TunnelKind::RequestFailed { ws: field("type") == Some("ws"), dest: dest.map(redacted) }
        } else {
            TunnelKind::Other
        }
    }
}

/// Prefixes of messages by kind, of old and new versions.
const REGISTERED: &[&str] = &["Registered tunnel connection"];
const UNREGISTERED: &[&str] = &["Unregistered tunnel connection"];
const LOST: &[&str] = &[
    "Lost connection with the edge",
    "failed to accept incoming stream requests",
    "failed to run the datagram handler",
    "failed to serve tunnel connection",
    "failed to serve the control stream",
    "Failed to serve quic connection",
    "Serve tunnel error",
    "Restarting connection due to reconnect signal",
];
const RETRYING: &[&str] =
    &["Retrying connection in up to", "Failed to dial a quic connection", "Switching to fallback protocol"];
const TERMINATED: &[&str] = &["Connection terminated"];
const FAILED: &[&str] = &["Request failed", "failed to serve incoming request"];
const COPIES: &[&str] = &[
    "upstream->downstream copy",
    "downstream->upstream copy",
    "origin->tunnel copy",
    "tunnel->origin copy",
    "Closing quic stream due to timeout while writing",
];

fn json(line: &str) -> Result<Raw, BadLine> {
    let Ok(object) = serde_json::from_str::<Map<String, Value>>(line) else {
        let ours =
            line.contains("\"level\"") && (line.contains("\"event\"") || line.contains("\"connIndex\""));
        return Err(if ours { BadLine::Unreadable("broken JSON") } else { BadLine::Other });
    };
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    // Traefik's own log has `level` and `time`, too, with the key `msg`.
    let (Some(level), false) = (text("level").and_then(level), object.contains_key("msg")) else {
        return Err(BadLine::Other);
    };
    let at_ms = text("time").and_then(time::rfc3339).ok_or(BadLine::Unreadable("no time"))?;
    let field = |(key, value): (&String, &Value)| match value {
        Value::String(text) => Some((key.clone(), text.clone())),
        Value::Number(number) => Some((key.clone(), number.to_string())),
        _ => None,
    };
    Ok(Raw {
        at_ms,
        level,
        message: text("message").unwrap_or_default().to_owned(),
        fields: object.iter().filter_map(field).collect(),
    })
}

/// Level names of zerolog's JSON.
fn level(word: &str) -> Option<Level> {
    Some(match word {
        "debug" | "trace" => Level::Debug,
        "info" => Level::Info,
        "warn" => Level::Warn,
        "error" => Level::Error,
        "fatal" | "panic" => Level::Fatal,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
