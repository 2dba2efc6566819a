//! Root, when we have it or may become it without a password prompt. Only finished programs run as
//! root; compiling never does, so a user's `target/` stays the user's.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// How root can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// We are root.
    Already,
    /// `sudo -n` works.
    Sudo,
    /// Neither.
    No,
}

/// How root can be had here; asked once.
pub fn root() -> Root {
    static ROOT: OnceLock<Root> = OnceLock::new();
    *ROOT.get_or_init(|| {
        if rustix::process::geteuid().is_root() {
            return Root::Already;
        }
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match sudo.status() {
            Ok(status) if status.success() => Root::Sudo,
            _ => Root::No,
        }
    })
}

/// A command that runs `program` as root, with our environment; `None` when root is not to be had.
pub fn command(program: impl AsRef<OsStr>) -> Option<Command> {
    match root() {
        Root::Already => Some(Command::new(program)),
        Root::Sudo => {
            let mut command = Command::new("sudo");
            command.args(["-n", "-E", "--"]).arg(program);
            Some(command)
        }
        Root::No => None,
    }
}
