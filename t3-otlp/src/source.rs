//! Entries from the journal, followed from the saved position, or from a file.
//!
//! They go through a bounded channel: when the collector does not accept, nothing is read, and the
//! journal keeps the records.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, bail};
use t3_record::journal::CLOSE_ID;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::Command,
    sync::mpsc::Sender,
};

use crate::entry::{self, Entry};

/// What a source found.
#[derive(Debug)]
pub enum Item {
    /// A record.
    Entry(Box<Entry>),
    /// An entry that cannot be exported, with the reason.
    Unreadable(String),
}

/// Arguments of journalctl: records of these units after the position, then new ones.
///
/// `_SYSTEMD_UNIT` is set by journald (systemd.journal-fields(7)), so that entries of other
/// processes with the same message ID are not read.
#[must_use]
pub fn arguments(units: &[String], cursor: Option<&str>) -> Vec<String> {
    let mut arguments =
        ["--follow", "--no-tail", "--all", "--output=json", "--no-pager"].map(str::to_owned).to_vec();
    arguments.extend(cursor.map(|cursor| format!("--after-cursor={cursor}")));
    arguments.push(format!("MESSAGE_ID={CLOSE_ID}"));
    arguments.extend(units.iter().map(|unit| format!("_SYSTEMD_UNIT={unit}")));
    arguments
}

/// Position of the last entry of the journal; `None` if it is empty.
///
/// # Errors
/// journalctl failed.
pub async fn end_of_journal() -> anyhow::Result<Option<String>> {
    let mut command = Command::new("journalctl");
    command.args(["--lines=1", "--output=json", "--no-pager"]).stdin(Stdio::null());
    let output = command.output().await.context("cannot start journalctl")?;
    if !output.status.success() {
        bail!("cannot read the journal: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().last().and_then(entry::cursor))
}

/// Follows the journal until journalctl ends: an error, because it follows.
///
/// # Errors
/// journalctl failed or ended.
pub async fn follow(units: &[String], cursor: Option<&str>, items: Sender<Item>) -> anyhow::Result<()> {
    let mut command = Command::new("journalctl");
    command.args(arguments(units, cursor)).stdin(Stdio::null()).kill_on_drop(true);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start journalctl")?;
    let stdout = child.stdout.take().context("journalctl has no stdout")?;
    let mut stderr = child.stderr.take().context("journalctl has no stderr")?;
    let message = tokio::spawn(async move {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text).await;
        text
    });
    read(stdout, &items).await.context("cannot read from journalctl")?;
    let status = child.wait().await.context("cannot wait for journalctl")?;
    bail!("journalctl ended ({status}): {}", message.await.unwrap_or_default().trim());
}

/// Reads a file of `journalctl --output=json`, `-` for standard input, to its end.
///
/// # Errors
/// It cannot be read.
pub async fn file(path: &Path, items: Sender<Item>) -> anyhow::Result<()> {
    let what = || format!("cannot read {}; see --from", path.display());
    if path == Path::new("-") {
        return read(tokio::io::stdin(), &items).await.with_context(what);
    }
    read(File::open(path).await.with_context(what)?, &items).await.with_context(what)
}

async fn read(input: impl AsyncRead + Unpin, items: &Sender<Item>) -> std::io::Result<()> {
    let mut lines = BufReader::new(input).split(b'\n');
    while let Some(line) = lines.next_segment().await? {
        let text = String::from_utf8_lossy(&line);
        let item = match entry::parse(&text) {
            _ if text.trim().is_empty() => continue,
            Ok(Some(entry)) => Item::Entry(Box::new(entry)),
            Ok(None) => continue,
            Err(error) => Item::Unreadable(error.to_string()),
        };
        if items.send(item).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_of_the_units_after_the_position_are_read() {
        let units = ["t3-dispatch.service".to_owned(), "t3-trace.service".to_owned()];
        let arguments = arguments(&units, Some("s=1;i=2"));
        assert!(arguments.contains(&"--after-cursor=s=1;i=2".to_owned()));
        let matches: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
        assert_eq!(
            matches,
            [
                "MESSAGE_ID=7a0d3c1e5b8f4f62a9c4d5e6f7081923",
                "_SYSTEMD_UNIT=t3-dispatch.service",
                "_SYSTEMD_UNIT=t3-trace.service"
            ]
        );
    }

    #[tokio::test]
    async fn broken_lines_are_reported_and_others_skipped() {
        let (send, mut items) = tokio::sync::mpsc::channel(9);
        read(&b"no\n\n{\"MESSAGE\":\"x\"}\n\xff\n"[..], &send).await.unwrap();
        drop(send);
        let mut broken = 0;
        while let Some(item) = items.recv().await {
            assert!(matches!(item, Item::Unreadable(_)), "{item:?}");
            broken += 1;
        }
        assert_eq!(broken, 2);
    }
}
