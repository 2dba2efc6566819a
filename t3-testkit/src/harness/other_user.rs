//! A process of another user: the test program again, in a role. A role is an ignored test of the
//! program, which fails if it was not started here: a role that does nothing counts as no test.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::error::{Attempt, Result, TestError};

/// Words of a role, separated by spaces.
const ROLE: &str = "T3_TEST_ROLE";
/// Start of a line for the test, which distinguishes it from those of the test harness.
const LINE: &str = "ROLE ";

/// The process; it ends on drop.
#[derive(Debug)]
pub struct OtherUser {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl OtherUser {
    /// Starts the ignored test `name` as root; it becomes another user itself.
    pub fn start(name: &str, words: &str) -> Result<Self> {
        let program = std::env::current_exe().attempt(|| "find the test program".to_owned())?;
        Self::launch(Command::new(program), name, words)
    }

    /// Starts the ignored test `name` as this user in new user and network namespaces, of which it
    /// is root. Their loopback interface is up. `dir` must be accessible to all users.
    pub fn start_in_namespaces(uid: u32, dir: &Path, name: &str, words: &str) -> Result<Self> {
        let program = dir.join("role");
        let copied = std::env::current_exe().and_then(|own| {
            fs::copy(own, &program)?;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        });
        copied.attempt(|| format!("copy the test program to {}", program.display()))?;
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c"]);
        command.arg("ip link set lo up && exec \"$0\" \"$@\"").arg(program).current_dir("/");
        command.uid(uid).gid(uid);
        Self::launch(command, name, words)
    }

    fn launch(mut command: Command, name: &str, words: &str) -> Result<Self> {
        command.args(["--ignored", "--exact", name, "--nocapture"]);
        command.env(ROLE, words).stdout(Stdio::piped());
        let mut child = command.spawn().attempt(|| format!("start the process {name}"))?;
        let output = child.stdout.take().ok_or_else(|| TestError::Unexpected {
            what: "a pipe from the process".to_owned(),
            got: "none".to_owned(),
        })?;
        Ok(Self { child, output: BufReader::new(output) })
    }

    /// The next line that the process printed with [`say`]; empty at its end.
    #[must_use]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).is_ok_and(|length| length > 0) {
            if let Some(at) = line.find(LINE) {
                return line.split_off(at + LINE.len()).trim_end().to_owned();
            }
            line.clear();
        }
        String::new()
    }
}

impl Drop for OtherUser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Words of the role of this process.
///
/// # Errors
/// [`TestError::Missing`] if no test started it.
pub fn role() -> Result<Vec<String>> {
    let words = std::env::var(ROLE).map_err(|_| TestError::Missing {
        what: "the role of this process".to_owned(),
        remedy: "run the tests of its program, which start it".to_owned(),
    })?;
    Ok(words.split(' ').map(str::to_owned).collect())
}

/// Prints a line for the test.
pub fn say(text: &str) {
    println!("\n{LINE}{text}");
}
