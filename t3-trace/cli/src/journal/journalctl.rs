//! Runs journalctl, which knows journal files better than we do, and gives its entries one by one.
//! Every command that looks back reads through here. Decides nothing about what an entry means.

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

/// The most that is kept of what journalctl complains of, in bytes.
const COMPLAINT: u64 = 4096;

/// The journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no journalctl, or it may not be run.
    #[error("run journalctl: {0}; it comes with systemd and must be in PATH")]
    Start(#[source] io::Error),
    /// Its output broke off.
    #[error("read journalctl's output: {0}")]
    Output(#[source] io::Error),
    /// It failed; its own words.
    #[error("journalctl failed ({status}): {complaint}")]
    Failed {
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote to stderr.
        complaint: String,
    },
}

/// Which entries of which journal, and what of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// From when on.
    pub since: Option<Moment>,
    /// Until when.
    pub until: Option<Moment>,
    /// The last entry first.
    pub reverse: bool,
    /// Of which journal.
    pub place: JournalSource,
    /// Only these fields (and the time, which every entry has); all when empty.
    pub fields: Vec<String>,
    /// `FIELD=value` terms: for one field any of them, for several fields all, and `+` between
    /// alternatives (journalctl(1)). journald has an index of every value: what does not match
    /// costs nothing.
    pub matches: Vec<String>,
}

/// Gives each entry to `each`, in the order of the query, until the journal's end, or until `each`
/// fails; its failure is the inner result.
///
/// # Errors
/// [`ReadError`] when the journal was not read to its end.
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

/// The same for the lines of a journalctl that is run in another way.
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
    // Read beside the output, so that journalctl never waits for us with a full pipe.
    let complaint = child.stderr.take().map(|mut stderr| {
        thread::spawn(move || {
            let mut kept = Vec::new();
            let _ = stderr.by_ref().take(COMPLAINT).read_to_end(&mut kept);
            let _ = io::copy(&mut stderr, &mut io::sink());
            // It quotes names of files, and those may hold anything.
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
    let complaint = complaint.and_then(|thread| thread.join().ok()).unwrap_or_default();
    Err(ReadError::Failed { status, complaint })
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
