//! nginx with one process, configured for the same work as t3-dispatch: it checks the identity
//! header, forwards the client's address, uses keepalive and keeps idle tunnels for an hour. It
//! writes no log. Buffers have their default sizes.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use super::{SPARE, Setup, find_program};
use crate::{
    bench::client::USER,
    error::{Attempt, Result},
};

pub(super) fn command(setup: &Setup<'_>, address: SocketAddr) -> Result<Command> {
    let path = setup.dir.join(format!("nginx-{}.conf", address.port()));
    let text = configuration(setup.dir, address, setup.backend, setup.sessions);
    fs::write(&path, text).attempt(|| format!("write {}", path.display()))?;
    let mut command = Command::new(find_program("nginx")?);
    command.args(["-e", "stderr", "-p"]).arg(setup.dir).arg("-c").arg(path);
    Ok(command)
}

fn configuration(dir: &Path, address: SocketAddr, backend: SocketAddr, sessions: usize) -> String {
    // A session is two connections.
    let connections = 2 * (sessions + SPARE);
    let dir = dir.display();
    let port = address.port();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {dir}/nginx-{port}.pid;\n\
         error_log stderr error;\nevents {{ worker_connections {connections}; }}\n\
         http {{\n    access_log off;\n    client_body_temp_path {dir}/nginx;\n    \
         proxy_temp_path {dir}/nginx;\n    fastcgi_temp_path {dir}/nginx;\n    \
         uwsgi_temp_path {dir}/nginx;\n    scgi_temp_path {dir}/nginx;\n    \
         server {{\n        listen {address} backlog=4096 so_keepalive=on;\n        location / {{\n            \
         if ($http_x_authentik_username != {USER}) {{ return 403; }}\n            \
         proxy_pass http://{backend};\n            proxy_http_version 1.1;\n            \
         proxy_set_header Upgrade $http_upgrade;\n            proxy_set_header Connection upgrade;\n            \
         proxy_set_header Host $host;\n            \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n            \
         proxy_socket_keepalive on;\n            proxy_read_timeout 1h;\n            \
         proxy_send_timeout 1h;\n        }}\n    }}\n}}\n"
    )
}

/// Name and version as nginx prints them.
pub(super) fn version() -> Option<String> {
    let output = Command::new(find_program("nginx").ok()?).arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.trim().rsplit(' ').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn one_process_has_connections_for_both_legs() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1234));
        let backend = SocketAddr::from((Ipv4Addr::LOCALHOST, 5678));
        let text = configuration(Path::new("/d"), address, backend, 10);
        for line in [
            "master_process off;",
            "worker_processes 1;",
            "pid /d/nginx-1234.pid;",
            "worker_connections 420;",
            "listen 127.0.0.1:1234 ",
            "proxy_pass http://127.0.0.1:5678;",
            "if ($http_x_authentik_username != bench) { return 403; }",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
