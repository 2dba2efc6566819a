//! Envoy's access log of HTTP requests: the default text format, Istio's text format, or JSON.
//!
//! Text is not escaped by Envoy, so a line with two possible readings is rejected. The name of a
//! JSON key is chosen by the operator; the names of Envoy Gateway and Istio and those of the
//! command operators are read. Values: Envoy's documentation, `access_log/usage` and
//! `response_code_details`.

mod text;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    BadLine, LONGEST,
    statement::{Closer, Statement, Witness, agreed, shown},
    text::unframed,
    time,
    traefik::{first_address, path_of},
};

/// Parses a line, text or JSON.
///
/// # Errors
/// [`BadLine::Other`] for a line of another log, [`BadLine::Unreadable`] for a broken one.
pub fn parse(line: &str) -> Result<Statement, BadLine> {
    let line = unframed(line);
    if line.len() > LONGEST {
        return Err(BadLine::Unreadable("longer than 64 KiB"));
    }
    if line.starts_with('{') { json(line) } else { text::parse(line)?.statement() }
}

/// Fields of a line as written; `-` is `None`.
#[derive(Debug, Default)]
struct Raw<'a> {
    start: &'a str,
    path: &'a str,
    duration: &'a str,
    status: Option<&'a str>,
    flags: Option<&'a str>,
    details: Option<&'a str>,
    forwarded_for: Option<&'a str>,
    ray: Option<&'a str>,
    /// Close types of the downstream and the upstream connection.
    close_types: [Option<&'a str>; 2],
}

impl Raw<'_> {
    fn statement(&self) -> Result<Statement, BadLine> {
        let start_ms = time::rfc3339(self.start).ok_or(BadLine::Unreadable("the start is not a time"))?;
        let duration: i64 = self.duration.parse().map_err(|_| BadLine::Unreadable("no duration"))?;
        let flags = self.flags.into_iter().flat_map(|flags| flags.split(',')).map(of_flag);
        let types = self.close_types.into_iter().zip([Closer::Downstream, Closer::Upstream]);
        let types = types.map(|(kind, side)| of_close_type(kind, side));
        let details = self.details.map_or(Closer::Unstated, of_details);
        let named = [
            ("response_flags", self.flags),
            ("response_code_details", self.details),
            ("downstream_detected_close_type", self.close_types[0]),
            ("upstream_detected_close_type", self.close_types[1]),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", shown(value?))));
        Ok(Statement {
            witness: Witness::Envoy,
            start_ms: Some(start_ms),
            end_ms: start_ms.saturating_add(duration.max(0)),
            address: self.forwarded_for.and_then(first_address),
            path: Some(path_of(self.path)),
            ray: self.ray.and_then(super::ray),
            status: self.status.and_then(|status| status.parse().ok()),
            closer: agreed(flags.chain([details]).chain(types)),
            values: named.collect::<Vec<_>>().join(", "),
        })
    }
}

/// Response flags of an established stream; the others precede a 101 or have no side.
fn of_flag(flag: &str) -> Closer {
    match flag {
        // Connection termination, remote reset, protocol error.
        "DC" | "DR" | "DPE" => Closer::Downstream,
        "UC" | "UR" | "UPE" | "UF" => Closer::Upstream,
        // Local reset, overload manager, limits of the route or of the connection.
        "LR" | "OM" | "DT" | "UT" | "UMSDR" => Closer::Itself,
        "SI" => Closer::TimedOut,
        _ => Closer::Unstated,
    }
}

/// Response code details, by their beginning: `upstream_reset_after_response_started{...}`.
fn of_details(details: &str) -> Closer {
    let is = |name: &str| details.starts_with(name);
    let reset = is("upstream_reset_after_response_started") || is("upstream_reset_before_response_started");
    if reset && (details.contains("connection_termination") || details.contains("remote_reset")) {
        Closer::Upstream
    } else if is("downstream_remote_disconnect") || is("downstream_remote_reset") {
        Closer::Downstream
    } else if is("stream_idle_timeout") {
        Closer::TimedOut
    } else if [
        "downstream_local_disconnect",
        "duration_timeout",
        "max_duration_timeout",
        "upstream_max_stream_duration_reached",
        "upstream_response_timeout",
        "response_timeout",
        "overload",
    ]
    .into_iter()
    .any(is)
    {
        Closer::Itself
    } else {
        Closer::Unstated
    }
}

/// Detected close type of one connection. A local reset follows another event, and a normal close
/// has no order.
fn of_close_type(kind: Option<&str>, side: Closer) -> Closer {
    if kind == Some("RemoteReset") { side } else { Closer::Unstated }
}

fn json(line: &str) -> Result<Statement, BadLine> {
    let is_ours = |text: &str| text.contains("response_flags");
    let Ok(object) = serde_json::from_str::<Map<String, Value>>(line) else {
        return Err(if is_ours(line) { BadLine::Unreadable("broken JSON") } else { BadLine::Other });
    };
    let fields: BTreeMap<String, String> = object.iter().filter_map(field).collect();
    if !fields.contains_key("response_flags") && !fields.contains_key("downstream_detected_close_type") {
        return Err(BadLine::Other);
    }
    let any = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)).map(String::as_str);
    let path = any(&["path", "x_envoy_original_path", "x_envoy_origin_path"]);
    Raw {
        start: any(&["start_time"]).ok_or(BadLine::Unreadable("no start_time"))?,
        path: path.ok_or(BadLine::Unreadable("no path"))?,
        duration: any(&["duration"]).ok_or(BadLine::Unreadable("no duration"))?,
        status: any(&["response_code"]),
        flags: any(&["response_flags"]),
        details: any(&["response_code_details"]),
        forwarded_for: any(&["x_forwarded_for"]),
        ray: any(&["cf_ray", "ray"]),
        close_types: [any(&["downstream_detected_close_type"]), any(&["upstream_detected_close_type"])],
    }
    .statement()
}

/// Name in lower case with underscores, without the colon of a pseudo-header; a value other than
/// `-`.
fn field((key, value): (&String, &Value)) -> Option<(String, String)> {
    let value = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let key = key.trim_start_matches(':').replace('-', "_").to_ascii_lowercase();
    (!matches!(&*value, "" | "-")).then_some((key, value))
}

#[cfg(test)]
mod tests;
