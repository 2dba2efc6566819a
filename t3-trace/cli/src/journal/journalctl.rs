//! Runs journalctl and passes its entries on one by one. Does not interpret entries.

use std::{
    io::{self, BufReader},
    os::unix::process::ExitStatusExt,
    process::{ChildStdout, Command, Stdio},
    thread,
};

use super::{
    export_format::{Entries, Entry},
    source_args::JournalSource,
    warnings::{self, Warnings},
};
use crate::{
    present::{interrupt, text::safe},
    time::Moment,
};

/// The journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot run journalctl: {0}; it is part of systemd and must be in PATH")]
    Start(io::Error),
    #[error("cannot read the output of journalctl: {0}")]
    Output(io::Error),
    #[error("journalctl failed ({status}): {stderr}")]
    Failed { status: std::process::ExitStatus, stderr: String },
    #[error("no journal files in {place}; {hint}")]
    NoFiles { place: String, hint: &'static str },
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
    /// No entries are no reason to check whether there are files: another query does.
    pub often_empty: bool,
}

/// Calls `each` for every entry, until the end of the journal or until `each` fails; returns its
/// result and the warnings of journalctl, without which the journal was read completely.
///
/// # Errors
/// The journal was not read to its end, or there is none.
pub fn entries<E>(
    query: &Query,
    mut each: impl FnMut(&Entry) -> Result<(), E>,
) -> Result<(Result<(), E>, Warnings), ReadError> {
    let mut any = false;
    let (result, warnings) = run(command(query), |stdout| {
        let mut output = Entries::new(stdout);
        while let Some(entry) = output.read()? {
            any = true;
            if let Err(error) = each(entry) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    })?;
    // Without `--quiet`, journalctl would mention it for every query, and add a line to its output.
    if !any && !query.often_empty && warnings.is_empty() && has_no_files(&query.place)? {
        let (place, hint) = described(&query.place);
        return Err(ReadError::NoFiles { place, hint });
    }
    Ok((result, warnings))
}

fn run<E>(
    mut command: Command,
    read: impl FnOnce(BufReader<ChildStdout>) -> io::Result<Result<(), E>>,
) -> Result<(Result<(), E>, Warnings), ReadError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.envs(warnings::ENVIRONMENT);
    let mut child = command.spawn().map_err(ReadError::Start)?;
    // Read in parallel, so that journalctl never blocks on a full pipe.
    let warnings = child.stderr.take().map(|stderr| thread::spawn(move || Warnings::read(stderr)));
    let stdout = child.stdout.take().ok_or_else(no_output)?;
    let done = read(BufReader::with_capacity(1 << 16, stdout));
    let ended_early = !matches!(done, Ok(Ok(())));
    if ended_early {
        let _ = child.kill();
    }
    let status = child.wait();
    let warnings = warnings.and_then(|thread| thread.join().ok()).unwrap_or_default();
    let result = done.map_err(ReadError::Output)?;
    let status = status.map_err(ReadError::Output)?;
    interrupt::wait_after(status.signal());
    if !ended_early && !status.success() {
        return Err(ReadError::Failed { status, stderr: warnings.lines().join("; ") });
    }
    Ok((result, warnings))
}

/// Whether journalctl finds no files. It exits with 0 also then.
fn has_no_files(place: &JournalSource) -> Result<bool, ReadError> {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--lines=0"]).stdin(Stdio::null()).env("LC_ALL", "C");
    select(&mut command, place);
    let output = command.output().map_err(ReadError::Start)?;
    Ok(String::from_utf8_lossy(&output.stderr).contains("No journal files were found"))
}

fn described(place: &JournalSource) -> (String, &'static str) {
    match &place.directory {
        Some(directory) => {
            (safe(&directory.display().to_string()), "expected MACHINE-ID/*.journal or *.journal")
        }
        None => (
            "/var/log/journal and /run/log/journal".to_owned(),
            "see systemctl status systemd-journald, and Storage= in journald.conf",
        ),
    }
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
    select(&mut command, &query.place);
    command.args(&query.matches);
    command
}

fn select(command: &mut Command, place: &JournalSource) {
    for file in &place.file {
        command.arg("--file").arg(file);
    }
    if let Some(directory) = &place.directory {
        command.arg("--directory").arg(directory);
    }
}
