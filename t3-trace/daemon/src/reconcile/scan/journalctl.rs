//! Runs journalctl and passes its lines on. Does not interpret them.

use std::{
    ffi::OsString,
    io,
    ops::ControlFlow,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::Command,
};

/// A longer time without output is an error; the total time has no limit.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });
/// journalctl prints at most 4 KiB of each field, as an array of bytes four times as much.
const LONGEST_LINE: usize = 1 << 18;
const BUFFER: usize = 1 << 16;
/// Lines between two returns to the runtime.
const TURN: u32 = 256;
/// Limits of the messages kept.
const STDERR: u64 = 4096;
const WARNINGS: usize = 16;

/// The journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("journalctl is not installed")]
    NoProgram,
    #[error("cannot run journalctl: {0}")]
    Run(io::Error),
    #[error("journald does not confirm its entries: {0}")]
    Sync(String),
    #[error("cannot read the output of journalctl: {0}")]
    Output(io::Error),
    #[error("journalctl printed nothing for {0:?}")]
    Slow(Duration),
    #[error("journalctl failed ({status}): {stderr}")]
    Failed { status: ExitStatus, stderr: String },
    #[error("cannot read the boot id: {0}")]
    BootId(io::Error),
}

/// A selection of entries.
#[derive(Debug, Clone, Default)]
pub(super) struct Query {
    options: Vec<String>,
    matches: Vec<String>,
}

impl Query {
    /// Selects all entries, oldest first, with these fields.
    pub(super) fn with(fields: &[&str]) -> Self {
        let mut options = ["--quiet", "--no-pager", "--output=json"].map(str::to_owned).to_vec();
        options.push(format!("--output-fields={}", fields.join(",")));
        Self { options, matches: Vec::new() }
    }

    /// Only the last entry.
    pub(super) fn newest(mut self) -> Self {
        self.options.extend(["--reverse", "--lines=1"].map(str::to_owned));
        self
    }

    /// From this entry on, or from the next one if the journal no longer has it.
    pub(super) fn starting_at(mut self, cursor: &str) -> Self {
        self.options.push(format!("--cursor={cursor}"));
        self
    }

    /// Terms of one field are alternatives; terms of several fields must all match.
    pub(super) fn matching(mut self, field: &str, value: &str) -> Self {
        self.matches.push(format!("{field}={value}"));
        self
    }

    /// Separates two alternatives.
    pub(super) fn or(mut self) -> Self {
        self.matches.push("+".to_owned());
        self
    }

    pub(super) fn args(&self) -> impl Iterator<Item = &String> {
        self.options.iter().chain(&self.matches)
    }
}

/// Calls `each` for every line of the output, without its newline, until it breaks; a line that is
/// too long is passed as an empty one. Returns the messages of journalctl.
pub(super) async fn run<A: AsRef<std::ffi::OsStr>>(
    args: impl IntoIterator<Item = A>,
    each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<Vec<String>, ScanError> {
    let mut child = Command::new(program())
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ScanError::NoProgram,
            _ => ScanError::Run(error),
        })?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(ScanError::Output(io::ErrorKind::BrokenPipe.into()));
    };
    let mut kept = Vec::new();
    // Both at once, so that journalctl never blocks on a full pipe.
    let end = tokio::try_join!(read_lines(stdout, each), drain(stderr, &mut kept));
    let succeeded = match end {
        Ok(_) => {
            let status = tokio::time::timeout(PROGRESS_TIMEOUT, child.wait()).await;
            let status = status.map_err(|_| ScanError::Slow(PROGRESS_TIMEOUT))?.map_err(ScanError::Output)?;
            // In some versions an empty result is a failure; only a message is an error.
            if status.success() || kept.is_empty() { Ok(()) } else { Err(status) }
        }
        Err(Stop::Wanted) => {
            // Only frees the process: what it would have printed is not wanted.
            let _ = child.kill().await;
            Ok(())
        }
        Err(Stop::Error(error)) => return Err(error),
    };
    let messages = messages(&kept);
    match succeeded {
        Ok(()) => Ok(messages),
        Err(status) => Err(ScanError::Failed { status, stderr: messages.join("; ") }),
    }
}

#[derive(Debug)]
enum Stop {
    Wanted,
    Error(ScanError),
}

async fn read_lines(
    stdout: impl AsyncRead + Unpin,
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), Stop> {
    let mut stdout = BufReader::with_capacity(BUFFER, stdout);
    let mut line = Vec::new();
    let mut turn = 0;
    loop {
        let read = tokio::time::timeout(PROGRESS_TIMEOUT, next_line(&mut stdout, &mut line)).await;
        let read = read.map_err(|_| Stop::Error(ScanError::Slow(PROGRESS_TIMEOUT)))?;
        if !read.map_err(|error| Stop::Error(ScanError::Output(error)))? {
            return Ok(());
        }
        if each(&line).is_break() {
            return Err(Stop::Wanted);
        }
        turn += 1;
        if turn % TURN == 0 {
            // Other tasks of this thread answer dispatch in milliseconds.
            tokio::task::yield_now().await;
        }
    }
}

/// Reads a line without its newline; false at the end. One longer than [`LONGEST_LINE`] is empty.
async fn next_line(input: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut fits = true;
    let mut any = false;
    loop {
        let buffer = input.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        fits = fits && line.len() + part.len() <= LONGEST_LINE;
        if fits {
            line.extend_from_slice(part);
        } else {
            line.clear();
        }
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

async fn drain(stderr: impl AsyncRead + Unpin, kept: &mut Vec<u8>) -> Result<(), Stop> {
    let mut stderr = stderr.take(STDERR);
    let error = |error| Stop::Error(ScanError::Output(error));
    stderr.read_to_end(kept).await.map_err(error)?;
    tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await.map_err(error)?;
    Ok(())
}

/// File names in messages may have any characters.
fn messages(stderr: &[u8]) -> Vec<String> {
    let safe = |line: &str| {
        line.trim().chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
    };
    let text = String::from_utf8_lossy(stderr);
    text.lines().map(safe).filter(|line: &String| !line.is_empty()).take(WARNINGS).collect()
}

fn program() -> OsString {
    #[cfg(test)]
    if let Some(fake) = fake::program() {
        return fake;
    }
    OsString::from("journalctl")
}

/// A script in place of journalctl, for the tests of this thread.
#[cfg(test)]
pub(in crate::reconcile) mod fake {
    use std::{cell::RefCell, ffi::OsString, os::unix::fs::PermissionsExt};

    thread_local! {
        static PROGRAM: RefCell<Option<OsString>> = const { RefCell::new(None) };
    }

    pub(super) fn program() -> Option<OsString> {
        PROGRAM.with_borrow(Clone::clone)
    }

    /// Runs this shell script instead; `$*` has the arguments. The runtime must be single-threaded.
    pub(in crate::reconcile) fn set(dir: &tempfile::TempDir, script: &str) {
        let path = dir.path().join("journalctl");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        PROGRAM.set(Some(path.into()));
    }

    /// A program that does not exist.
    pub(in crate::reconcile) fn remove() {
        PROGRAM.set(Some("/no/such/journalctl".into()));
    }
}
