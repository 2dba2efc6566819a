//! Traefik's access log, CLF or JSON. Query strings are removed.

mod clf;

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value};

use super::{
    BadLine, LONGEST, ray,
    text::{redacted, unframed},
    time,
};

/// A request, logged at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLine {
    /// First address of [`Self::client_host`]: the client's, if Traefik trusts the edge.
    pub first_address: Option<IpAddr>,
    /// X-Forwarded-For after Traefik's filter, else the TCP peer.
    pub client_host: String,
    /// Start of the request, in milliseconds since the epoch.
    pub start_ms: i64,
    /// `start_ms` is exact (JSON); else truncated to seconds (CLF), up to 999 ms early.
    pub start_exact: bool,
    /// Duration in milliseconds; of a WebSocket, until its close.
    pub duration_ms: u64,
    /// Status of the response; 0 or 101 for a WebSocket; `None` if not logged.
    pub status: Option<u16>,
    /// Method.
    pub method: String,
    /// Path without its query.
    pub path: String,
    /// Router.
    pub router: Option<String>,
    /// Selected backend.
    pub service_url: Option<String>,
    /// Request number since the start of this Traefik process.
    pub request_count: Option<u64>,
    /// `Cf-Ray` header, if logged (JSON only).
    pub ray: Option<String>,
}

impl AccessLine {
    /// End of the request, in milliseconds since the epoch.
    #[must_use]
    pub fn end_ms(&self) -> i64 {
        self.start_ms.saturating_add(i64::try_from(self.duration_ms).unwrap_or(i64::MAX))
    }
}

/// Parses a line, CLF or JSON.
///
/// # Errors
/// [`BadLine::Other`] for a line of another log, [`BadLine::Unreadable`] for a broken one.
pub fn parse(line: &str) -> Result<AccessLine, BadLine> {
    let line = unframed(line);
    if line.len() > LONGEST {
        return Err(BadLine::Unreadable("longer than 64 KiB"));
    }
    if line.starts_with('{') { json(line) } else { clf::parse(line) }
}

/// Keys that only an access line has.
const OURS: [&str; 4] = ["RequestMethod", "RequestPath", "StartUTC", "DownstreamStatus"];

fn json(line: &str) -> Result<AccessLine, BadLine> {
    let Ok(object) = serde_json::from_str::<Map<String, Value>>(line) else {
        let ours = OURS.iter().any(|key| line.contains(key));
        return Err(if ours { BadLine::Unreadable("broken JSON") } else { BadLine::Other });
    };
    if !OURS.iter().any(|key| object.contains_key(*key)) {
        return Err(BadLine::Other);
    }
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let start = ["StartUTC", "StartLocal"].into_iter().find_map(text);
    let start = start.ok_or(BadLine::Unreadable("neither StartUTC nor StartLocal"))?;
    let start_ms = time::rfc3339(start).ok_or(BadLine::Unreadable("StartUTC is not a time"))?;
    let duration = object.get("Duration").and_then(Value::as_u64);
    let duration = duration.ok_or(BadLine::Unreadable("no Duration"))?;
    let method = text("RequestMethod").ok_or(BadLine::Unreadable("no RequestMethod"))?;
    let path = text("RequestPath").ok_or(BadLine::Unreadable("no RequestPath"))?;
    let client_host = ["ClientHost", "ClientAddr"].into_iter().find_map(text).unwrap_or("-");
    let status = object.get("DownstreamStatus").and_then(Value::as_u64);
    Ok(AccessLine {
        first_address: first_address(client_host),
        client_host: redacted(client_host),
        start_ms,
        start_exact: true,
        duration_ms: duration / 1_000_000,
        status: status.and_then(|status| u16::try_from(status).ok()),
        method: redacted(method),
        path: path_of(path),
        router: text("RouterName").and_then(named),
        service_url: object.get("ServiceURL").and_then(service_url),
        request_count: object.get("RequestCount").and_then(Value::as_u64),
        ray: object.iter().find_map(|(key, value)| {
            key.eq_ignore_ascii_case("request_Cf-Ray").then(|| value.as_str().and_then(ray))?
        }),
    })
}

/// A string; in older versions an object, Go's `url.URL`.
fn service_url(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return named(text);
    }
    let part = |key: &str| value.get(key).and_then(Value::as_str).filter(|part| !part.is_empty());
    let scheme = part("Scheme").unwrap_or("http");
    Some(redacted(&format!("{scheme}://{}{}", part("Host")?, part("Path").unwrap_or_default())))
}

/// `None` for `-` and the empty string.
fn named(text: &str) -> Option<String> {
    (!matches!(text, "" | "-")).then(|| redacted(text))
}

/// Removes the query.
pub(super) fn path_of(path: &str) -> String {
    redacted(path.split_once('?').map_or(path, |(path, _)| path))
}

/// First address of an X-Forwarded-For; some proxies append a port.
pub(super) fn first_address(host: &str) -> Option<IpAddr> {
    let first = host.split(',').next()?.trim();
    let address = first.parse().or_else(|_| first.parse::<SocketAddr>().map(|socket| socket.ip()));
    let bare = || first.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.ok().or_else(bare).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests;
