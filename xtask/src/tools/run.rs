//! Runs programs: output in a file, progress on long runs, and a timeout that kills the process
//! tree.
//!
//! Children stay in the process group of xtask, so that Ctrl-C ends them too. The timeout therefore
//! walks `/proc` instead of killing a group.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};

use crate::tools::progress;

/// Interval of progress lines of a long step.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
/// Printed lines of a failed program's output.
const SHOWN_LINES: usize = 150;
const HOUR: Duration = Duration::from_secs(3600);

/// A finished program.
#[derive(Debug)]
pub struct CommandResult {
    /// `None` when it was killed after its timeout.
    pub status: Option<ExitStatus>,
    /// stdout and stderr in order; only stderr after [`run_split`].
    pub output: String,
    /// stdout after [`run_split`]; else empty.
    pub stdout: String,
    /// Run time.
    pub time: Duration,
}

impl CommandResult {
    /// Whether it exited with status 0.
    pub fn ok(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// Describes how it ended.
    pub fn how(&self) -> String {
        match self.status {
            Some(status) => status.to_string(),
            None => format!("killed after its timeout of {}", progress::took(self.time)),
        }
    }
}

/// The program and its arguments as one line, for messages.
pub fn command_line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// Runs `command` up to `limit` without showing its output; prints progress under the name `what`.
pub fn run_quiet(what: &str, command: Command, limit: Duration) -> Result<CommandResult> {
    let log = unnamed_file()?;
    let stdout = log.try_clone()?;
    wait(what, command, limit, stdout, log)
}

/// Like [`run_quiet`], with stdout separate from stderr.
pub fn run_split(what: &str, command: Command, limit: Duration) -> Result<CommandResult> {
    let mut stdout = unnamed_file()?;
    let finished = wait(what, command, limit, stdout.try_clone()?, unnamed_file()?)?;
    Ok(CommandResult { stdout: text_of(&mut stdout)?, ..finished })
}

fn wait(
    what: &str,
    mut command: Command,
    limit: Duration,
    stdout: File,
    mut log: File,
) -> Result<CommandResult> {
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(log.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot start `{}`", command_line(&command)))?;
    let mut shown = begin;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begin.elapsed() > limit {
            end_tree(&mut child);
            break None;
        }
        if shown.elapsed() > PROGRESS_INTERVAL {
            shown = Instant::now();
            progress::note(&format!("{what}: {} so far", progress::took(begin.elapsed())));
        }
        // Short at first: many short programs would add up to a long wait.
        let pause = begin.elapsed().clamp(Duration::from_millis(2), Duration::from_millis(100));
        std::thread::sleep(pause);
    };
    Ok(CommandResult { status, output: text_of(&mut log)?, stdout: String::new(), time: begin.elapsed() })
}

fn text_of(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Like [`run_quiet`], up to an hour; a failure is an error and prints the output.
pub fn run_checked(what: &str, command: Command) -> Result<CommandResult> {
    let text = command_line(&command);
    succeeded(what, &text, run_quiet(what, command, HOUR)?)
}

/// Like [`run_checked`], with stdout separate from stderr.
pub fn run_split_checked(what: &str, command: Command) -> Result<CommandResult> {
    let text = command_line(&command);
    succeeded(what, &text, run_split(what, command, HOUR)?)
}

fn succeeded(what: &str, text: &str, finished: CommandResult) -> Result<CommandResult> {
    if !finished.ok() {
        progress::excerpt(text, &finished.output, SHOWN_LINES);
        bail!("{what} failed: `{text}`: {}", finished.how());
    }
    Ok(finished)
}

/// Prints the end of a failed program's output.
pub fn show_failure(title: &str, finished: &CommandResult) {
    progress::excerpt(&format!("{title}: {}", finished.how()), &finished.output, SHOWN_LINES);
}

/// Returns the stdout of a short program; a failure is an error.
pub fn stdout_of(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", command_line(command)))?;
    if !output.status.success() {
        bail!(
            "`{}`: {}: {}",
            command_line(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program of this name is in PATH or in the sbin directories.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

/// Kills `child` and all its descendants, and reaps it.
pub fn end_tree(child: &mut Child) {
    let mut pids = i32::try_from(child.id()).map(|pid| vec![pid]).unwrap_or_default();
    let mut next = 0;
    while let Some(&parent) = pids.get(next) {
        next += 1;
        pids.extend(children_of(parent));
    }
    for pid in pids.into_iter().filter_map(Pid::from_raw) {
        // It may have exited already.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn children_of(pid: i32) -> Vec<i32> {
    let Ok(tasks) = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// A file without a name: it needs no clean-up, and both output streams can share it in order.
fn unnamed_file() -> Result<File> {
    let dir = std::env::temp_dir();
    let path = dir.join(format!("xtask-{}-{:?}", std::process::id(), std::thread::current().id()));
    let file = File::options().read(true).append(true).create_new(true).open(&path);
    let file = file.with_context(|| format!("cannot create {}", path.display()))?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::{command_line, run_quiet};
    use std::process::Command;
    use std::time::Duration;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_are_kept_in_order() {
        let end = run_quiet("sh", sh("echo a; echo b >&2; echo c"), Duration::from_secs(20)).unwrap();
        assert!(end.ok());
        assert_eq!(end.output, "a\nb\nc\n");
    }

    #[test]
    fn a_timeout_kills_grandchildren_too() {
        let end = run_quiet("sh", sh("sleep 1000 & echo $!; sleep 1000; true"), Duration::from_millis(300))
            .unwrap();
        assert!(end.status.is_none() && !end.ok());
        let grandchild = end.output.trim().to_owned();
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
        assert!(gone, "process {grandchild} still runs");
    }

    #[test]
    fn an_exit_code_is_reported() {
        let end = run_quiet("sh", sh("exit 3"), Duration::from_secs(20)).unwrap();
        assert!(!end.ok());
        assert!(end.how().contains('3'), "{}", end.how());
    }

    #[test]
    fn a_command_is_printed_as_typed() {
        assert_eq!(command_line(&sh("true")), "sh -c true");
    }
}
