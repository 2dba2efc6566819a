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
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("logger").starts_with("http.log.access") {
        return Some(format!("status={}", entry.get("status")?.as_u64()?));
    }
    match text("msg") {
        "streaming error" => Some(format!("streaming error: {}", reason(text("error")))),
        "connection closed" => Some("connection closed".to_owned()),
        _ => None,
    }
}

/// The first and the last word of an error of Go's net package, without the addresses: `writeto:
/// connection reset by peer`.
fn reason(error: &str) -> String {
    let last = error.rsplit(": ").next().unwrap_or(error);
    match error.split_once(" tcp ") {
        Some((operation, _)) => format!("{operation}: {last}"),
        None => last.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_no_addresses() {
        let error = "writeto tcp 127.0.0.1:1->127.0.0.1:2: read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer";
        assert_eq!(reason(error), "writeto: connection reset by peer");
        assert_eq!(reason("hijacked connection copy complete"), "hijacked connection copy complete");
    }
}
