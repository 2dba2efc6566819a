//! Runs journalctl, which knows journal files better than we do, and gives its lines one by one. Selects by `MESSAGE_ID`, never by
//! unit: some closes are told by t3-trace itself.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    thread,
};

use t3_record::{
    CloseRecord,
    journal::{CLOSE_ID, OPEN_ID, field},
};

use super::args::ClosesArgs;
use crate::journal_trust;

/// The most that is kept of what journalctl complains of, in bytes.
const COMPLAINT: u64 = 4096;

/// The journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no journalctl, or it may not be run.
    #[error("run journalctl: {0}; it comes with systemd and must be in PATH")]
    Start(#[source] std::io::Error),
    /// Its output broke off.
    #[error("read journalctl's output: {0}")]
    Output(#[source] std::io::Error),
    /// It failed; its own words.
    #[error("journalctl failed ({status}): {complaint}")]
    Failed {
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote to stderr.
        complaint: String,
    },
}

/// Gives each line to `each` until the journal's end, or until `each` fails; its failure is the inner result.
///
/// # Errors
/// [`ReadError`] when the journal was not read to its end.
pub fn lines<E>(
    args: &ClosesArgs,
    mut each: impl FnMut(&str) -> Result<(), E>,
) -> Result<Result<(), E>, ReadError> {
    let mut child = command(args).spawn().map_err(ReadError::Start)?;
    // Read beside the output, so that journalctl never waits for us with a full pipe.
    let complaint = child.stderr.take().map(|mut stderr| {
        thread::spawn(move || {
            let mut kept = Vec::new();
            let _ = stderr.by_ref().take(COMPLAINT).read_to_end(&mut kept);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            String::from_utf8_lossy(&kept).trim().to_owned()
        })
    });
    let stdout = child.stdout.take().ok_or_else(no_output)?;
    let mut output = BufReader::with_capacity(1 << 16, stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        match output.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                stop(&mut child);
                return Err(ReadError::Output(error));
            }
        }
        if let Err(error) = each(&String::from_utf8_lossy(&line)) {
            stop(&mut child);
            return Ok(Err(error));
        }
    }
    let status = child.wait().map_err(ReadError::Output)?;
    if status.success() {
        return Ok(Ok(()));
    }
    let complaint = complaint.and_then(|thread| thread.join().ok()).unwrap_or_default();
    Err(ReadError::Failed { status, complaint })
}

fn no_output() -> ReadError {
    ReadError::Output(std::io::ErrorKind::BrokenPipe.into())
}

fn stop(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn command(args: &ClosesArgs) -> Command {
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=json", "--all"]);
    // Older programs' fields and the journal's own are not asked for: they are most of an entry.
    let mut fields = vec!["MESSAGE_ID".to_owned(), field("gap_ms")];
    fields.extend(journal_trust::FIELDS.map(str::to_owned));
    fields.extend(CloseRecord::KEYS.iter().map(|key| field(key.name)));
    command.arg(format!("--output-fields={}", fields.join(",")));
    command.args(args.since.map(|since| format!("--since={}", since.at_epoch())));
    command.args(args.until.map(|until| format!("--until={}", until.at_epoch())));
    command.args(args.boot.as_ref().map(|boot| format!("--boot={boot}")));
    for file in &args.file {
        command.arg("--file").arg(file);
    }
    if let Some(directory) = &args.directory {
        command.arg("--directory").arg(directory);
    }
    command.args([CLOSE_ID, OPEN_ID].map(|id| format!("MESSAGE_ID={id}")));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
