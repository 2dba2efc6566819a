//! `systemd-socket-proxyd` in front of a serve.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use super::Process;
use crate::{
    error::{Result, TestError},
    wait,
};

/// The second on a system whose `/lib` is a folder of its own.
const PROGRAMS: [&str; 2] = ["/usr/lib/systemd/systemd-socket-proxyd", "/lib/systemd/systemd-socket-proxyd"];
const ACTIVATOR: &str = "/usr/bin/systemd-socket-activate";
/// `comm` of both, cut by the kernel.
pub const FORWARDER_COMM: &str = "systemd-socket-";

/// Whether the programs exist (package systemd of Debian).
#[must_use]
pub fn can_forward() -> bool {
    program().is_some() && Path::new(ACTIVATOR).exists()
}

fn program() -> Option<&'static str> {
    PROGRAMS.into_iter().find(|path| Path::new(path).exists())
}

/// Starts a forwarder from `port` to `target`, both on 127.0.0.1.
pub fn forward(port: u16, target: u16) -> Result<Process> {
    let program = program().ok_or_else(|| TestError::Missing {
        what: "systemd-socket-proxyd".to_owned(),
        remedy: "install systemd".to_owned(),
    })?;
    let mut command = Command::new(ACTIVATOR);
    command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg(program).arg(format!("127.0.0.1:{target}"));
    let process = Process::start(command)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait::until("a forwarder that accepts", Duration::from_secs(20), || TcpStream::connect(address).ok())?;
    Ok(process)
}
