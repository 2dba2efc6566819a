//! Runs journalctl and passes its entries on one by one. Does not interpret entries.

use std::{
    io::{self, BufRead, BufReader, Read},
    process::{ChildStdout, Command, Stdio},
    thread,
};

use super::{
    export_format::{Entries, Entry},
    source_args::JournalSource,
};
use crate::{present::text::safe, time::Moment};

/// Limit of journalctl's stderr in an error, in bytes.
const STDERR: u64 = 4096;

/// The journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot run journalctl: {0}; it is part of systemd and must be in PATH")]
    Start(io::Error),
    #[error("cannot read the output of journalctl: {0}")]
    Output(io::Error),
    #[error("journalctl failed ({status}): {stderr}")]
    Failed { status: std::process::ExitStatus, stderr: String },
}

/// Selection of entries of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pub since: Option<Moment>,
    pub until: Option<Moment>,
    /// Newest first.
    pub reverse: bool,
    pub place: JournalSource,
    /// Fields to read in addition to the time; all if empty.
    pub fields: Vec<String>,
    /// `FIELD=value` terms: several terms of one field are alternatives, terms of several fields
    /// must all match, `+` separates alternatives (journalctl(1)). journald has an index of every
    /// value: entries that do not match cost nothing.
    pub matches: Vec<String>,
}

/// Calls `each` for every entry, until the end of the journal or until `each` fails; the inner
/// result is that of `each`.
///
/// # Errors
/// The journal was not read to its end.
pub fn entries<E>(
    query: &Query,
    mut each: impl FnMut(&Entry) -> Result<(), E>,
) -> Result<Result<(), E>, ReadError> {
    run(command(query), |stdout| {
        let mut output = Entries::new(stdout);
        while let Some(entry) = output.read()? {
            if let Err(error) = each(entry) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    })
}

/// As [`entries`], for the lines of another journalctl command.
///
/// # Errors
/// As [`entries`].
pub fn output<E>(
    command: Command,
    mut each: impl FnMut(&str) -> Result<(), E>,
) -> Result<Result<(), E>, ReadError> {
    run(command, |mut stdout| {
        let mut line = Vec::new();
        while stdout.read_until(b'\n', &mut line)? > 0 {
            if let Err(error) = each(&String::from_utf8_lossy(&line)) {
                return Ok(Err(error));
            }
            line.clear();
        }
        Ok(Ok(()))
    })
}

fn run<E>(
    mut command: Command,
    read: impl FnOnce(BufReader<ChildStdout>) -> io::Result<Result<(), E>>,
) -> Result<Result<(), E>, ReadError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(ReadError::Start)?;
    // Read in parallel, so that journalctl never blocks on a full pipe.
    let errors = child.stderr.take().map(|mut stderr| {
        thread::spawn(move || {
            let mut kept = Vec::new();
            let _ = stderr.by_ref().take(STDERR).read_to_end(&mut kept);
            let _ = io::copy(&mut stderr, &mut io::sink());
            // It contains file names, which may have any characters.
            String::from_utf8_lossy(&kept).trim().lines().map(safe).collect::<Vec<_>>().join("; ")
        })
    });
    let stdout = child.stdout.take().ok_or_else(no_output)?;
    let done = read(BufReader::with_capacity(1 << 16, stdout));
    if !matches!(done, Ok(Ok(()))) {
        let _ = child.kill();
        let _ = child.wait();
        return done.map_err(ReadError::Output);
    }
    let status = child.wait().map_err(ReadError::Output)?;
    if status.success() {
        return Ok(Ok(()));
    }
    let stderr = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
    Err(ReadError::Failed { status, stderr })
}

fn no_output() -> ReadError {
    ReadError::Output(io::ErrorKind::BrokenPipe.into())
}

fn command(query: &Query) -> Command {
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=export", "--all"]);
    if !query.fields.is_empty() {
        command.arg(format!("--output-fields={}", query.fields.join(",")));
    }
    command.args(query.since.map(|since| format!("--since={}", since.at_epoch())));
    command.args(query.until.map(|until| format!("--until={}", until.at_epoch())));
    command.args(query.reverse.then_some("--reverse"));
    command.args(query.place.boot.as_ref().map(|boot| format!("--boot={boot}")));
    for file in &query.place.file {
        command.arg("--file").arg(file);
    }
    if let Some(directory) = &query.place.directory {
        command.arg("--directory").arg(directory);
    }
    command.args(&query.matches);
    command
}
