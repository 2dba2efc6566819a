//! Reads of the journal with journalctl: `ws open` and `ws close` entries, the oldest entry, the
//! end of a boot.
//!
//! journalctl is the only reader of journal files that matches their version. Its output is read
//! line by line, so that memory does not depend on the size of the journal.

mod boots;
mod entry;
mod journalctl;

use std::{collections::BTreeSet, ops::ControlFlow, time::Duration};

use t3_record::{
    journal::{CLOSE_ID, OPEN_ID},
    reconcile::Moment,
};
use t3_trace_host::journal_trust::{self, Trust};

use self::journalctl::Query;
pub use self::{
    entry::{Found, OldestEntry, OpenEntry},
    journalctl::ScanError,
};

/// Sessions in one search: journalctl compares each entry with all terms.
const SEARCHED: usize = 200;
const SYNC_TIMEOUT: Duration = Duration::from_secs(3);

/// `MESSAGE_ID` of the first and the last entry of a journald process (sd-messages.h,
/// `SD_MESSAGE_JOURNAL_START` and `SD_MESSAGE_JOURNAL_STOP`).
const JOURNALD_STARTED: &str = "f77379a8490b408bbe5f6940505a777b";
const JOURNALD_STOPPED: &str = "d93fb3c9c24d451a97cea615ce59c00b";
/// `MESSAGE_ID` of systemd before it starts or stops a unit.
const UNIT_STARTING: &str = "7d4958e842da4a758f6c1cdc7b36dcc5";
const UNIT_STOPPING: &str = "de5b426a63be47a7b6ac3eaac82e2f6f";
/// On a host with its own file system for /var, this unit moves the journal back to /run at
/// shutdown, and the last entry of journald is lost with it.
const FLUSH_UNIT: &str = "systemd-journal-flush.service";

/// Begin of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// After this entry. If it is no longer in the journal, as [`From::Boots`].
    Cursor(String),
    /// All of this boot and of the one before.
    Boots,
}

/// Result of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The last entry read; `None` if none.
    pub cursor: Option<String>,
    /// Entries read.
    pub entries: u64,
    /// Those of them that cannot be decoded or have an untrusted writer.
    pub skipped: u64,
    /// The entry of the cursor was not in the journal: the scan read as [`From::Boots`].
    pub restarted: bool,
    /// Messages of a journalctl that succeeded, such as names of damaged files.
    pub warnings: Vec<String>,
}

/// Waits until journald has processed all entries sent before.
///
/// # Errors
/// [`ScanError::NoProgram`] without journalctl; [`ScanError::Sync`] if journald does not confirm.
pub async fn sync() -> Result<(), ScanError> {
    match tokio::time::timeout(SYNC_TIMEOUT, journalctl::run(["--sync"], |_| ControlFlow::Continue(()))).await
    {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error @ ScanError::NoProgram)) => Err(error),
        Ok(Err(error)) => Err(ScanError::Sync(error.to_string())),
        Err(_) => Err(ScanError::Sync(format!("no answer in {SYNC_TIMEOUT:?}"))),
    }
}

/// Calls `each` for every `ws open` and `ws close` of a trusted writer, oldest first. An entry may
/// be passed again in a later scan: when the cursor is gone, entries before it are read, too.
///
/// # Errors
/// The journal was not read to its end; `each` has been called for what was read.
pub async fn scan(
    from: &From,
    trust: Trust,
    mut each: impl FnMut(Found) + Send,
) -> Result<Scanned, ScanError> {
    if let From::Cursor(cursor) = from
        && let Some(scanned) = after(cursor, trust, &mut each).await?
    {
        return Ok(scanned);
    }
    let boots = boots::this_and_previous().await?;
    let query = boots.iter().fold(records(), |query, boot| query.matching("_BOOT_ID", boot));
    let mut scanned = Scanned { restarted: matches!(from, From::Cursor(_)), ..Scanned::default() };
    scanned.warnings = journalctl::run(query.args(), |line| {
        scanned.take(line, trust, &mut each);
        ControlFlow::Continue(())
    })
    .await?;
    Ok(scanned)
}

/// Reads what follows an entry; `None` if it is not in the journal.
///
/// `--after-cursor` skips one entry, whether or not it is that of the cursor (systemd 252), and a
/// seek may go by wall clock. So the entry of the cursor is read, too, and compared.
async fn after(
    cursor: &str,
    trust: Trust,
    each: &mut (impl FnMut(Found) + Send),
) -> Result<Option<Scanned>, ScanError> {
    let Some(position) = entry::position(cursor) else { return Ok(None) };
    let mut scanned = Scanned::default();
    let mut reached = false;
    let warnings = journalctl::run(records().starting_at(cursor).args(), |line| {
        if reached {
            scanned.take(line, trust, each);
            return ControlFlow::Continue(());
        }
        let decoded = entry::decode(line, trust);
        reached = decoded.cursor.as_deref().and_then(entry::position) == Some(position);
        if reached { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .await?;
    scanned.warnings = warnings;
    Ok(reached.then_some(scanned))
}

/// Returns those of the sessions that have a `ws close` of a trusted writer, wherever it is in the
/// journal.
///
/// # Errors
/// [`ScanError`].
pub async fn recorded(conns: &[String], trust: Trust) -> Result<BTreeSet<String>, ScanError> {
    let mut found = BTreeSet::new();
    for some in conns.chunks(SEARCHED) {
        let query = Query::with(&fields()).matching("MESSAGE_ID", CLOSE_ID);
        let query = some.iter().fold(query, |query, conn| query.matching("T3_CONN", conn));
        journalctl::run(query.args(), |line| {
            if let Some(Found::Close { conn }) = entry::decode(line, trust).found {
                found.insert(conn);
            }
            ControlFlow::Continue(())
        })
        .await?;
    }
    Ok(found)
}

/// Returns boot and time of the oldest entry of the journal; `None` if the journal is empty.
///
/// # Errors
/// [`ScanError`].
pub async fn oldest_entry() -> Result<Option<OldestEntry>, ScanError> {
    let mut oldest = None;
    // `--lines=1` is the newest; so the child is killed after the first line.
    journalctl::run(Query::with(&["_BOOT_ID"]).args(), |line| {
        oldest = entry::boot_and_time(line);
        ControlFlow::Break(())
    })
    .await?;
    Ok(oldest)
}

/// Returns the time of the last entry of a boot, and of a process if given.
///
/// # Errors
/// [`ScanError`].
pub async fn last_sign(boot_id: &str, pid: Option<u32>) -> Result<Option<Moment>, ScanError> {
    let query = Query::with(&["_BOOT_ID"]).newest().matching("_BOOT_ID", boot_id);
    let query = match pid {
        Some(pid) => query.matching("_PID", &pid.to_string()),
        None => query,
    };
    let mut last = None;
    journalctl::run(query.args(), |line| {
        last = entry::moment(line);
        ControlFlow::Break(())
    })
    .await?;
    Ok(last)
}

/// Whether a boot ended with a shutdown, not with a reset or loss of power: journald has stopped
/// and has not started again.
///
/// # Errors
/// [`ScanError`].
pub async fn ended_cleanly(boot_id: &str) -> Result<bool, ScanError> {
    // A client cannot set `_TRANSPORT` or `_PID`.
    let query = Query::with(&["MESSAGE_ID"])
        .newest()
        .matching("_BOOT_ID", boot_id)
        .matching("_TRANSPORT", "driver")
        .matching("MESSAGE_ID", JOURNALD_STARTED)
        .matching("MESSAGE_ID", JOURNALD_STOPPED)
        .or()
        .matching("_BOOT_ID", boot_id)
        .matching("_PID", "1")
        .matching("UNIT", FLUSH_UNIT)
        .matching("MESSAGE_ID", UNIT_STARTING)
        .matching("MESSAGE_ID", UNIT_STOPPING);
    let mut clean = false;
    journalctl::run(query.args(), |line| {
        let id = entry::message_id(line);
        clean = id.is_some_and(|id| id == JOURNALD_STOPPED || id == UNIT_STOPPING);
        ControlFlow::Break(())
    })
    .await?;
    Ok(clean)
}

/// All `ws open` and `ws close` entries, with the fields that [`entry::decode`] reads.
fn records() -> Query {
    Query::with(&fields()).matching("MESSAGE_ID", OPEN_ID).matching("MESSAGE_ID", CLOSE_ID)
}

fn fields() -> Vec<&'static str> {
    entry::FIELDS.iter().chain(&journal_trust::FIELDS).copied().collect()
}

impl Scanned {
    fn take(&mut self, line: &[u8], trust: Trust, each: &mut impl FnMut(Found)) {
        self.entries += 1;
        let decoded = entry::decode(line, trust);
        if let Some(cursor) = decoded.cursor {
            let last = self.cursor.get_or_insert_default();
            last.clear();
            last.push_str(&cursor);
        }
        match decoded.found {
            Some(found) => each(found),
            None => self.skipped += 1,
        }
    }
}

#[cfg(test)]
mod tests;
