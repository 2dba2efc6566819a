//! Traefik: an entry point and a router per route, the access log in JSON and its own log at debug
//! level. It has no idle timeout for upgraded connections.

use std::{fmt::Write as _, path::Path, process::Command};

use serde_json::Value;

use super::Route;

pub(super) const FILES: &[&str] = &["traefik.yml", "traefik-rules.yml"];
pub(super) const LOGS: &[&str] = &["traefik-access.log"];

pub(super) fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(format!("--configFile={}", dir.join("traefik.yml").display()));
    command
}

pub(super) fn configuration(dir: &Path, routes: &[Route]) -> Vec<String> {
    let dir = dir.display();
    let mut entries = String::new();
    let mut routers = String::new();
    let mut services = String::new();
    for Route { name, listen, serve, .. } in routes {
        let _ = writeln!(
            entries,
            "  e-{name}: {{address: '0.0.0.0:{listen}', transport: {{lifeCycle: {{graceTimeOut: 1s}}}}}}"
        );
        let _ = writeln!(
            routers,
            "    {name}: {{rule: 'PathPrefix(`/`)', entryPoints: [e-{name}], service: {name}}}"
        );
        let _ = writeln!(
            services,
            "    {name}: {{loadBalancer: {{servers: [{{url: 'http://127.0.0.1:{serve}'}}]}}}}"
        );
    }
    let general = format!(
        "global: {{checkNewVersion: false, sendAnonymousUsage: false}}\nlog: {{level: DEBUG, noColor: true}}\n\
         accessLog: {{filePath: '{dir}/traefik-access.log', format: json}}\n\
         providers: {{file: {{filename: '{dir}/traefik-rules.yml'}}}}\nentryPoints:\n{entries}"
    );
    vec![general, format!("http:\n  routers:\n{routers}  services:\n{services}")]
}

/// The words of a line of its logs that say how a session ended.
pub(super) fn summary(line: &str) -> Option<String> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let status = |key: &str| entry.get(key).and_then(Value::as_u64);
    Some(format!("status={} origin_status={}", status("DownstreamStatus")?, status("OriginStatus")?))
}
