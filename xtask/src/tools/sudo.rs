//! Root privileges, if available without a password prompt. Only finished programs run as root;
//! compilers never do, so the user keeps owning `target/`.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// How to get root privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// xtask runs as root.
    Already,
    /// `sudo -n` works.
    Sudo,
    /// Neither.
    No,
}

/// How to get root privileges here; checked once.
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

/// A command that runs `program` as root, with the environment of xtask; `None` without root
/// privileges.
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
