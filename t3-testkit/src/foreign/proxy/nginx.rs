//! nginx with a master and one worker: a server per route, and an access log with the upstream's
//! status.

use std::{fmt::Write as _, path::Path, process::Command, time::Duration};

use super::Route;

pub(super) const FILES: &[&str] = &["nginx.conf"];
pub(super) const LOGS: &[&str] = &["nginx-access.log", "nginx-error.log"];

pub(super) fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(dir.join("nginx.conf"));
    command
}

pub(super) fn configuration(dir: &Path, routes: &[Route]) -> Vec<String> {
    let dir = dir.display();
    let mut text = format!(
        "daemon off;\nworker_processes 1;\nuser root;\npid {dir}/nginx.pid;\n\
         error_log {dir}/nginx-error.log info;\nevents {{ worker_connections 256; }}\nhttp {{\n    \
         log_format t3 '$request_uri status=$status upstream_status=$upstream_status \
         request_completion=\"$request_completion\"';\n    access_log {dir}/nginx-access.log t3;\n"
    );
    for part in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "    {part}_temp_path {dir}/nginx-{part};");
    }
    for Route { listen, serve, idle_timeout, .. } in routes {
        let read = idle_timeout.unwrap_or(Duration::from_secs(3_600)).as_secs();
        let _ = writeln!(
            text,
            "    server {{\n        listen 0.0.0.0:{listen};\n        location / {{\n            \
             proxy_pass http://127.0.0.1:{serve};\n            proxy_http_version 1.1;\n            \
             proxy_set_header Upgrade $http_upgrade;\n            proxy_set_header Connection upgrade;\n            \
             proxy_read_timeout {read}s;\n        }}\n    }}"
        );
    }
    text.push_str("}\n");
    vec![text]
}

/// The words of a line of its logs that say how a session ended.
pub(super) fn summary(line: &str) -> Option<String> {
    if let Some((_, rest)) = line.split_once(" status=") {
        return Some(format!("status={rest}").replace(" request_completion=", " completion="));
    }
    // DATE TIME [LEVEL] PID#TID: *CONNECTION MESSAGE, client: ...
    let message = line.split_once(": *")?.1.split_once(' ')?.1;
    Some(message.split(", client: ").next().unwrap_or(message).to_owned())
}
