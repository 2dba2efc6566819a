//! Executes a command as root's login shell would: the same search path, and a working directory
//! that a `cd` changes for the commands after it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::super::steps::{KEPT, must};
use crate::error::{Attempt, Result};

/// Search path of root in Debian (`/etc/login.defs`), without the programs of the guest.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Arguments: directory, command, file for the directory afterwards.
const SCRIPT: &str = r#"cd "$1" && eval "$2" && pwd >"$3""#;

/// Working directory of the commands so far.
#[derive(Debug)]
pub(super) struct Terminal {
    directory: PathBuf,
}

impl Terminal {
    pub(super) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Executes a command with these lines as its input; returns its output. An error if it, or a
    /// part of a pipe, fails.
    pub(super) fn execute(&mut self, command: &str, input: &str) -> Result<String> {
        let end = tempfile::NamedTempFile::new().attempt(|| "create a file for the directory".to_owned())?;
        let mut child = bash()
            .args(["-o", "pipefail", "-c", SCRIPT, "bash"])
            .arg(&self.directory)
            .arg(command)
            .arg(end.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .attempt(|| format!("start `{command}`"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // Most commands do not read it.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().attempt(|| format!("wait for `{command}`"))?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        must(
            output.status.success(),
            &format!("`{command}` succeeds"),
            format!("{}\n{text}", output.status),
        )?;
        let directory = fs::read_to_string(end.path()).attempt(|| "read the directory".to_owned())?;
        self.directory = PathBuf::from(directory.trim_end());
        Ok(text)
    }
}

/// A command that runs until it is interrupted.
#[derive(Debug)]
pub(super) struct Watcher {
    child: Child,
    output: PathBuf,
}

impl Watcher {
    pub(super) fn start(command: &str) -> Result<Self> {
        let output = Path::new(KEPT).join("watched");
        let file = fs::File::create(&output).attempt(|| format!("create {}", output.display()))?;
        let errors = file.try_clone().attempt(|| format!("duplicate {}", output.display()))?;
        let mut bash = bash();
        bash.args(["-c", command]).stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = bash.spawn().attempt(|| format!("start `{command}`"))?;
        Ok(Self { child, output })
    }

    /// What it has printed.
    pub(super) fn seen(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Ends it by Ctrl-C; returns what it has printed.
    pub(super) fn interrupt(mut self) -> Result<String> {
        crate::sys::signal(self.child.id(), libc::SIGINT).attempt(|| "interrupt the command".to_owned())?;
        let status = self.child.wait().attempt(|| "wait for the command".to_owned())?;
        must(status.success(), "success after Ctrl-C", format!("{status}\n{}", self.seen()))?;
        Ok(self.seen())
    }
}

fn bash() -> Command {
    let mut command = Command::new("bash");
    command.env_clear().envs([("PATH", PATH), ("HOME", "/root"), ("TERM", "dumb"), ("USER", "root")]);
    command
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Terminal;

    #[test]
    fn a_command_or_part_of_a_pipe_that_fails_is_an_error() {
        let table = [
            ("true", true),
            ("true    # remark", true),
            ("false", false),
            ("no-such-command-of-the-page", false),
            ("exit 3", false),
            ("false | true", false),
            ("cd /no/such/directory", false),
            ("false; true", true),
        ];
        for (command, expected) in table {
            assert_eq!(Terminal::at(Path::new("/")).execute(command, "").is_ok(), expected, "{command}");
        }
    }

    #[test]
    fn a_directory_is_kept_and_input_and_output_are_passed() {
        let mut terminal = Terminal::at(Path::new("/"));
        terminal.execute("cd /usr", "").unwrap();
        assert_eq!(terminal.execute("pwd", "").unwrap(), "/usr\n");
        assert_eq!(terminal.execute("read -r answer; echo \"$answer\" >&2", "y\n").unwrap(), "y\n");
    }
}
