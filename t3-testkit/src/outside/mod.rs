//! A browser outside a guest, and its hypervisor: what a test inside cannot do while the guest is
//! stopped.
//!
//! The guest sends a scene as one line over a serial port, the host plays it
//! (`stage`) and answers `ok` or the error.

mod scene;
mod stage;

pub use scene::{Scene, Step};
pub use stage::{Hypervisor, play_all};

use std::{
    fs::OpenOptions,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    error::{Attempt, Result, TestError},
    wait,
};

/// The serial port to the host.
const PORT: &str = "/dev/virtio-ports/t3.host";
/// Address of the guest in the user network of qemu, and that network.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub const NETWORK: &str = "10.0.2.0/24";
/// A scene takes less than a minute.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Whether a host offers this.
#[must_use]
pub fn exists() -> bool {
    Path::new(PORT).exists()
}

/// Plays a scene with a browser that connects to this port of the guest; returns after it.
pub fn play(scene: &Scene) -> Result<()> {
    let what = || format!("ask the host through {PORT}");
    up()?;
    let mut port = OpenOptions::new().read(true).write(true).open(PORT).attempt(what)?;
    writeln!(port, "{scene}").attempt(what)?;
    let (sender, answered) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(port).read_line(&mut line);
        drop(sender.send(read.map(|_| line)));
    });
    let limit = wait::scaled(TIMEOUT);
    let timeout = |_| TestError::Timeout { what: "an answer of the host".to_owned(), after: limit };
    let line = answered.recv_timeout(limit).map_err(timeout)?.attempt(what)?;
    match line.trim_end() {
        "ok" => Ok(()),
        other => Err(TestError::Unexpected { what: format!("`{scene}`"), got: other.to_owned() }),
    }
}

/// Has the hypervisor reset this guest, as by its reset button; returns only if that fails.
pub fn reset<T>() -> Result<T> {
    let what = || format!("ask the host through {PORT}");
    let mut port = OpenOptions::new().read(true).write(true).open(PORT).attempt(what)?;
    writeln!(port, "{}", Scene(vec![Step::Reset])).attempt(what)?;
    let limit = wait::scaled(TIMEOUT);
    std::thread::sleep(limit);
    Err(TestError::Timeout { what: "the reset of the guest".to_owned(), after: limit })
}

/// The guest has an interface without configuration.
fn up() -> Result<()> {
    let address = SocketAddr::from((GUEST, 0)).ip().to_string() + "/24";
    for arguments in [&["link", "set", "eth0", "up"][..], &["address", "replace", &address, "dev", "eth0"]] {
        let mut ip = Command::new("ip");
        let status = ip.args(arguments).stdin(Stdio::null()).status();
        if !status.attempt(|| "run ip".to_owned())?.success() {
            let what = format!("`ip {}`", arguments.join(" "));
            return Err(TestError::Unexpected { what, got: "failed".to_owned() });
        }
    }
    Ok(())
}
