//! HAProxy as one process: a frontend and a backend per route, and its HTTP log with the
//! termination state.

use std::{fmt::Write as _, path::Path, process::Command, time::Duration};

use super::Route;

pub(super) const FILES: &[&str] = &["haproxy.cfg"];

pub(super) fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["-db", "-f"]).arg(dir.join("haproxy.cfg"));
    command
}

pub(super) fn configuration(routes: &[Route]) -> Vec<String> {
    let mut text = "global\n    log stdout format raw local0 info\n    nbthread 1\n    maxconn 200\n\
                    defaults\n    mode http\n    log global\n    \
                    log-format \"%HU status=%ST state=%tsc bytes=%B\"\n    \
                    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n"
        .to_owned();
    for Route { name, listen, serve, idle_timeout } in routes {
        let tunnel = idle_timeout.unwrap_or(Duration::from_secs(3_600)).as_secs();
        let _ = write!(
            text,
            "frontend f_{name}\n    bind 0.0.0.0:{listen}\n    default_backend b_{name}\n\
             backend b_{name}\n    timeout tunnel {tunnel}s\n    server serve 127.0.0.1:{serve}\n"
        );
    }
    vec![text]
}

/// The words of a line of its log that say how a session ended.
pub(super) fn summary(line: &str) -> Option<String> {
    // The number of bytes makes HAProxy write the line at the end of the session, not at its start.
    let rest = line.split_once(" status=")?.1;
    Some(format!("status={}", rest.split(" bytes=").next().unwrap_or(rest)))
}
