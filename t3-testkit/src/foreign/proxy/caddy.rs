//! Caddy: a site per route, with the access log and its own log at debug level as JSON on stderr.
//! Its only timeout of an upgraded connection counts from the start, `stream_timeout`.

use std::{fmt::Write as _, path::Path, process::Command};

use serde_json::Value;

use super::Route;

pub(super) const FILES: &[&str] = &["Caddyfile"];

pub(super) fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(dir.join("Caddyfile"));
    command.env("XDG_DATA_HOME", dir).env("XDG_CONFIG_HOME", dir);
    command
}

pub(super) fn configuration(routes: &[Route]) -> Vec<String> {
    let mut text = "{\n    admin off\n    persist_config off\n    auto_https off\n    debug\n    \
                    log {\n        output stderr\n        format json\n    }\n}\n"
        .to_owned();
    for Route { listen, serve, idle_timeout, .. } in routes {
        let timeout =
            idle_timeout.map_or_else(String::new, |limit| format!("stream_timeout {}s", limit.as_secs()));
        let _ = writeln!(
            text,
            "http://:{listen} {{\n    log\n    reverse_proxy 127.0.0.1:{serve} {{\n        {timeout}\n    }}\n}}"
        );
    }
    vec![text]
}

/// The words of a line of its log that say how a session ended.
pub(super) fn summary(line: &str) -> Option<String> {
    let entry: Value = serde_json::from_str(line).ok()?;
    if let Some(status) = entry.get("status").and_then(Value::as_u64) {
        return Some(format!("status={status}"));
    }
    let message = entry.get("msg")?.as_str()?;
    let wanted = ["streaming error", "connection closed", "closing", "aborting"];
    if !wanted.iter().any(|word| message.contains(word)) {
        return None;
    }
    let error = entry.get("error").and_then(Value::as_str).map_or_else(String::new, |why| format!(": {why}"));
    Some(format!("{message}{error}"))
}
