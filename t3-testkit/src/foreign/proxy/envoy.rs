//! Envoy with one worker: a listener and a cluster per route, and an access log with the response
//! flags.

use std::{fmt::Write as _, path::Path, process::Command, time::Duration};

use super::Route;

pub(super) const FILES: &[&str] = &["envoy.yaml"];
pub(super) const LOGS: &[&str] = &["envoy-access.log"];

pub(super) fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
    command.args(["--file-flush-interval-msec", "50", "-c"]).arg(dir.join("envoy.yaml"));
    command
}

pub(super) fn configuration(dir: &Path, routes: &[Route]) -> Vec<String> {
    let log = dir.join("envoy-access.log");
    let log = log.display();
    let mut text = "static_resources:\n  listeners:\n".to_owned();
    for Route { name, listen, idle_timeout, .. } in routes {
        let idle = idle_timeout.unwrap_or(Duration::from_secs(3_600)).as_secs();
        let _ = writeln!(
            text,
            "  - address: {{socket_address: {{address: 0.0.0.0, port_value: {listen}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          upgrade_configs: [{{upgrade_type: websocket}}]
          access_log:
          - name: file
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {log}
              log_format: {{text_format_source: {{inline_string: \"%REQ(:PATH)% status=%RESPONSE_CODE% flags=%RESPONSE_FLAGS% details=%RESPONSE_CODE_DETAILS%\\n\"}}}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes: [{{match: {{prefix: /}}, route: {{cluster: {name}, timeout: 0s, idle_timeout: {idle}s}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"
        );
    }
    text.push_str("  clusters:\n");
    for Route { name, serve, .. } in routes {
        let _ = writeln!(
            text,
            "  - name: {name}
    connect_timeout: 5s
    type: STATIC
    load_assignment:
      cluster_name: {name}
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {serve}}}}}}}}}]}}]"
        );
    }
    vec![text]
}

/// The words of a line of its log that say how a session ended.
pub(super) fn summary(line: &str) -> Option<String> {
    line.split_once(" status=").map(|(_, rest)| format!("status={rest}"))
}
