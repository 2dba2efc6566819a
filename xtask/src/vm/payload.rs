//! The second disk of a guest: a tar with the programs to run and the script that runs them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::tools::run::run_checked;
use crate::vm::suite::Suite;

const CHECK: &str = include_str!("guest/check.sh");
/// Created by a command that requests a reboot; it runs again afterwards (`guest/run.sh`).
const REBOOT: &str = "/run/t3-vm.reboot";
/// Exists after a reboot.
const REBOOTED: &str = "/var/lib/t3-vm.rebooted";

/// Programs and commands for a guest.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    /// Programs put into `/opt/t3/bin`, which is in PATH: (name there, file here). Static ones.
    pub programs: Vec<(String, PathBuf)>,
    /// Other files, put into `/opt/t3` under these names.
    pub files: Vec<(String, PathBuf)>,
    /// Shell commands, run in order as root; the highest exit code is that of the guest.
    pub commands: Vec<String>,
    /// Environment variables for all of them.
    pub env: Vec<(String, String)>,
}

impl Payload {
    /// Writes the disk for one release into `dir`.
    pub fn write(&self, suite: Suite, dir: &Path) -> Result<PathBuf> {
        let tree = dir.join("payload");
        let bin = tree.join("bin");
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        fs::create_dir_all(&bin)?;
        for (name, file) in &self.programs {
            fs::copy(file, bin.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        for (name, file) in &self.files {
            let to = tree.join(name);
            fs::create_dir_all(to.parent().unwrap_or(&tree))?;
            fs::copy(file, to).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        script(&bin.join("guest-check"), CHECK)?;
        script(&tree.join("run.sh"), &self.run_script(suite))?;
        let disk = dir.join("payload.tar");
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "-cf"]).arg(&disk).arg("-C").arg(&tree).arg(".");
        run_checked("tar", tar)?;
        fs::remove_dir_all(&tree)?;
        Ok(disk)
    }

    /// The script that the unit in the guest starts.
    fn run_script(&self, suite: Suite) -> String {
        let mut text = String::from("#!/bin/sh\nworst=0\n");
        for (name, value) in &self.env {
            text.push_str(&format!("export {name}={}\n", quoted(value)));
        }
        text.push_str(&format!("export T3_VM_SUITE={}\n", suite.name()));
        // After a reboot the guest has been checked already.
        let check = format!("test -e {REBOOTED} || guest-check {}", suite.kernel());
        for command in std::iter::once(&check).chain(&self.commands) {
            // A command that requested a reboot runs again after it, and then the commands after
            // it.
            text.push_str(&format!("test -e {REBOOT} || {{ {command}; }}"));
            text.push_str(" || { code=$?; [ $code -gt $worst ] && worst=$code; }\n");
        }
        text.push_str("exit $worst\n");
        text
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Payload;
    use crate::vm::suite::Suite;
    use std::process::Command;

    fn exit_of(commands: &[&str]) -> Option<i32> {
        let payload = Payload {
            commands: commands.iter().map(|text| (*text).to_owned()).collect(),
            env: vec![("QUOTED".to_owned(), "it's $HOME".to_owned())],
            ..Payload::default()
        };
        let text = payload.run_script(Suite::Bookworm).replace("guest-check", "true");
        Command::new("sh").args(["-c", &text]).status().unwrap().code()
    }

    #[test]
    fn the_highest_exit_code_is_that_of_the_guest() {
        assert_eq!(exit_of(&["true"]), Some(0));
        assert_eq!(exit_of(&["sh -c 'exit 3'", "true", "sh -c 'exit 2'"]), Some(3));
    }

    #[test]
    fn variables_are_passed_unchanged() {
        assert_eq!(exit_of(&[r#"test "$QUOTED" = "it's \$HOME""#, "test $T3_VM_SUITE = bookworm"]), Some(0));
    }
}
