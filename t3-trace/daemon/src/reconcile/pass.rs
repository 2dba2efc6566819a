//! One pass over the journal: finds opened sessions without a close, and the records that must be
//! written. The order of its steps is what makes a second record impossible (see the ledger).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Mutex,
};

use t3_record::{
    evidence::Nanos,
    reconcile::{Moment, UnclosedEnd, UnclosedSession, reconcile},
};

use super::{
    dispatch_id::{DispatchId, Host},
    entry::{Entry, Kept, Origin},
    journal_view::JournalView,
    ledger::{State, Write},
    scan::{Found, From, OpenEntry, ScanError},
    store::Store,
};
use crate::locked::lock;

/// Result of a pass.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    /// Records to write now.
    pub(crate) writes: Vec<Write<Kept>>,
    /// Sessions of an ended dispatch that got a record; it is written by the next pass.
    pub(crate) reconciled: u64,
    /// Kept sessions of an ended dispatch that its successor may continue: a later pass decides.
    pub(crate) awaited: u64,
    /// Complaints of journalctl.
    pub(crate) warnings: Vec<String>,
}

/// Processes that account for a session.
#[derive(Clone, Copy)]
pub(crate) struct Owners<'a> {
    /// dispatch has registered the session, and its end is handled with evidence.
    pub(crate) is_registered: &'a (dyn Fn(&str) -> bool + Sync),
    /// A successor of the ended dispatch with this pid may still register its kept sessions.
    pub(crate) is_awaited: &'a (dyn Fn(u32) -> bool + Sync),
    /// [`Host::started`].
    pub(crate) started: fn(u32) -> Option<Nanos>,
}

/// Runs a pass.
///
/// # Errors
/// The journal cannot be read: nothing was decided.
pub(crate) async fn run(
    journal: &impl JournalView,
    store: &Mutex<Store>,
    host: &Host,
    owners: Owners<'_>,
) -> Result<Finished, ScanError> {
    lock(store).ledger.start_pass();
    journal.sync().await?;
    let from = lock(store).cursor().map_or(From::Boots, From::Cursor);
    let mut opens: HashMap<String, OpenEntry> = HashMap::new();
    let mut closed = Vec::new();
    let scanned = journal
        .scan(&from, &mut |found| match found {
            Found::Open(open) => {
                opens.insert(open.conn.clone(), open);
            }
            Found::Close { conn } => {
                opens.remove(&conn);
                if lock(store).ledger.get(&conn).is_some() {
                    closed.push(conn);
                }
            }
        })
        .await?;
    if !closed.is_empty() {
        // A close written since the first sync may not be on disk. A power loss must not take it
        // after the spool has forgotten the session.
        journal.sync().await?;
    }
    {
        let mut store = lock(store);
        for conn in closed {
            store.seen(&conn);
        }
        for open in opens.into_values() {
            store.ledger.found_open(&open.conn.clone(), || origin(open));
        }
        store.persist();
    }
    let (reconciled, awaited) = reconcile_gone(journal, store, host, owners).await?;
    let due = lock(store).ledger.due();
    let mut recorded = journal.recorded(&due).await?;
    recorded.extend(vacuumed(journal, store, &due, &recorded).await?);
    let writes = lock(store).finish_pass(&recorded, scanned.cursor);
    Ok(Finished { writes, reconciled, awaited, warnings: scanned.warnings })
}

fn origin(open: OpenEntry) -> Origin {
    let is_kept = open.is_kept;
    let dispatch =
        DispatchId { boot: open.boot_id, pid: open.pid, ran_at: open.monotonic_us.saturating_mul(1_000) };
    let session = UnclosedSession {
        conn: open.conn,
        user: open.user,
        ip: open.ip,
        ray: open.ray,
        opened: Moment { wall_us: open.realtime_us, monotonic: open.monotonic_us.saturating_mul(1_000) },
    };
    Origin { session, dispatch, is_kept }
}

/// Makes the records of sessions whose dispatch has ended and that no process handles. Returns
/// their number, and the number of those whose successor is awaited.
async fn reconcile_gone(
    journal: &impl JournalView,
    store: &Mutex<Store>,
    host: &Host,
    owners: Owners<'_>,
) -> Result<(u64, u64), ScanError> {
    let gone: Vec<Origin> = {
        let mut starts = HashMap::new();
        let mut started = |pid| *starts.entry(pid).or_insert_with(|| (owners.started)(pid));
        let mut is_gone = |origin: &Origin| origin.dispatch.is_gone(host, &mut started) == Some(true);
        let store = lock(store);
        let open = store.ledger.open().map(|(_, origin)| origin);
        open.filter(|origin| is_gone(origin)).cloned().collect()
    };
    let is_awaited = |Origin { dispatch, is_kept, .. }: &Origin| {
        *is_kept && dispatch.boot == host.boot && dispatch.pid.is_some_and(owners.is_awaited)
    };
    // In this order: a successor has registered its sessions before it is no longer awaited.
    let (awaited, lost): (Vec<_>, Vec<_>) = gone.into_iter().partition(is_awaited);
    let is_free = |origin: &Origin| !(owners.is_registered)(&origin.session.conn);
    let awaited = awaited.iter().filter(|origin| is_free(origin)).count() as u64;
    let lost: Vec<_> = lost.into_iter().filter(is_free).collect();
    let mut ends: HashMap<(String, Option<u32>), (UnclosedEnd, Option<Moment>)> = HashMap::new();
    let mut reconciled = 0;
    for Origin { session, dispatch, .. } in lost {
        let is_this_boot = dispatch.boot == host.boot;
        // The last sign of life of a host is that of any process.
        let process = (dispatch.boot.clone(), dispatch.pid.filter(|_| is_this_boot));
        let (end, last_sign) = match ends.get(&process) {
            Some(known) => *known,
            None => {
                let end = if is_this_boot {
                    UnclosedEnd::DispatchDied
                } else if journal.ended_cleanly(&dispatch.boot).await? {
                    UnclosedEnd::Reboot
                } else {
                    UnclosedEnd::PowerLoss
                };
                let last_sign = journal.last_sign(&process.0, process.1).await?;
                ends.insert(process, (end, last_sign));
                (end, last_sign)
            }
        };
        let record = reconcile(&session, end, last_sign);
        let mut store = lock(store);
        if !store.has_room() {
            break;
        }
        if store.claim(session, dispatch) {
            store.abandoned(&record, host.now());
            reconciled += 1;
        }
    }
    Ok((reconciled, awaited))
}

/// Records that had been written before the oldest entry of the journal: they arrived and were
/// removed with the old files.
async fn vacuumed(
    journal: &impl JournalView,
    store: &Mutex<Store>,
    due: &[String],
    recorded: &BTreeSet<String>,
) -> Result<Vec<String>, ScanError> {
    let written = |entry: &Entry| match &entry.state {
        State::Reported(record) | State::Sent { record, .. } => Some(record.made.clone()),
        State::Open | State::Claimed | State::Unkept | State::Pending(_) => None,
    };
    let unseen: Vec<_> = {
        let store = lock(store);
        let unseen = due.iter().filter(|conn| !recorded.contains(*conn));
        unseen.filter_map(|conn| Some((conn.clone(), written(store.ledger.get(conn)?)?))).collect()
    };
    if unseen.is_empty() {
        return Ok(Vec::new());
    }
    let Some(oldest) = journal.oldest_entry().await? else { return Ok(Vec::new()) };
    // Within one boot only: across boots the wall clock would decide, which can be set.
    let is_older = |made: &super::boot_moment::BootMoment| {
        made.boot == oldest.boot_id && made.at.monotonic < oldest.monotonic_us.saturating_mul(1_000)
    };
    Ok(unseen.into_iter().filter(|(_, made)| is_older(made)).map(|(conn, _)| conn).collect())
}

#[cfg(test)]
mod tests;
