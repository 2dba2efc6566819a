//! HAProxy with one thread, configured for the same work as t3-dispatch: it checks the identity
//! header, forwards the client's address, uses keepalive and keeps idle tunnels for an hour. It
//! writes no log.

use std::{fmt::Write as _, fs, net::SocketAddr, process::Command};

use super::{SPARE, Setup, find_program};
use crate::{
    bench::client::USER,
    error::{Attempt, Result},
};

/// Size of the large buffers in bytes.
const LARGE: usize = 64 << 10;

/// Settings of glibc's allocator (mallopt(3)). By default it returns the memory of a freed large
/// buffer to the kernel, and gets it back for the next one.
const KEEPS_MEMORY: [(&str, &str); 3] = [
    ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
    ("MALLOC_TOP_PAD_", "16777216"),
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
];

/// Buffers of HAProxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Buffers {
    Default,
    /// 64 KiB, with an allocator that keeps them.
    Large,
}

pub(super) fn command(setup: &Setup<'_>, address: SocketAddr, buffers: Buffers) -> Result<Command> {
    let path = setup.dir.join(format!("haproxy-{}.cfg", address.port()));
    let text = configuration(buffers, address, setup.backend, setup.sessions);
    fs::write(&path, text).attempt(|| format!("write {}", path.display()))?;
    let mut command = Command::new(find_program("haproxy")?);
    command.args(["-db", "-f"]).arg(path);
    if buffers == Buffers::Large {
        command.envs(KEEPS_MEMORY);
    }
    Ok(command)
}

fn configuration(buffers: Buffers, address: SocketAddr, backend: SocketAddr, sessions: usize) -> String {
    let mut text = String::from("global\n    nbthread 1\n");
    let _ = writeln!(text, "    maxconn {}", sessions + SPARE);
    if buffers == Buffers::Large {
        let _ = writeln!(text, "    tune.bufsize {LARGE}");
    }
    let _ = write!(
        text,
        "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n    \
         timeout tunnel 1h\n    option clitcpka\n    option srvtcpka\n\
         frontend browsers\n    bind {address}\n    \
         http-request deny status 403 unless {{ req.hdr(x-authentik-username) -m str {USER} }}\n    \
         default_backend serve\n\
         backend serve\n    option forwardfor\n    server one {backend}\n"
    );
    text
}

/// Name and version as HAProxy prints them.
pub(super) fn version() -> Option<String> {
    let output = Command::new(find_program("haproxy").ok()?).arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn only_the_large_buffers_are_configured() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1234));
        let backend = SocketAddr::from((Ipv4Addr::LOCALHOST, 5678));
        let text = configuration(Buffers::Default, address, backend, 10);
        assert!(!text.contains("tune.bufsize"), "{text}");
        for line in ["nbthread 1", "maxconn 210", "bind 127.0.0.1:1234", "server one 127.0.0.1:5678"] {
            assert!(text.contains(&format!("    {line}\n")), "{line} in {text}");
        }
        assert!(text.contains("{ req.hdr(x-authentik-username) -m str bench }"), "{text}");
        let large = configuration(Buffers::Large, address, backend, 10);
        assert_eq!(large.replace("    tune.bufsize 65536\n", ""), text);
    }
}
