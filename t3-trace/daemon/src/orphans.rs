//! dispatch's connection broke with sessions open: did it die? Then their records are written here,
//! each exactly once.
//!
//! A dispatch that lives writes its own records, connected or not; it is only waited for. One that
//! is dead may have written some of them before it could say so: those are looked up in the
//! journal. When that cannot be told, a second record is the lesser evil.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use t3_record::{
    Evidence,
    evidence::{DispatchDeath, Nanos},
    wire::FromTrace,
};
use t3_trace_host::journal_trust::Trust;

use crate::{
    dispatch_process::DispatchProcess,
    evidence::{LateEvents, gather},
    journal_lookup, poll,
    sessions::Entry,
    state::Shared,
};

/// How long a dispatch whose death cannot be observed may take to come back.
const GRACE: Duration = Duration::from_secs(2);
/// How long a dispatch that is connected again may take to tell of its sessions.
const RETELL: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);

/// Waits for what becomes of the sessions of a broken connection, and writes the records of those
/// that dispatch left behind.
pub(crate) async fn after(shared: Arc<Shared>, dispatch: DispatchProcess, broke_at: Nanos) {
    let id = dispatch.id;
    let pid = dispatch.pid;
    if !died(&shared, dispatch).await {
        return;
    }
    let orphans = shared.sessions().take(id);
    if orphans.is_empty() {
        return;
    }
    let fate = pid.and_then(|pid| shared.kernel().process(pid)).map(|trace| trace.fate);
    tracing::warn!(
        pid,
        ?fate,
        sessions = orphans.len(),
        "dispatch died; writing the records of its sessions"
    );
    let since = orphans.iter().filter_map(Entry::maybe_written_since).min();
    let written = match since.filter(|_| shared.options.to_journald) {
        Some(since) => {
            let trust = Trust::in_user(&shared.options.dispatch_user);
            journal_lookup::closes_since(since, trust).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot tell which records dispatch has already written; some may come twice");
                journal_lookup::RecordedConns::new()
            })
        }
        None => journal_lookup::RecordedConns::new(),
    };
    let death = DispatchDeath { fate, at: broke_at };
    for orphan in orphans {
        if orphan.maybe_written_since().is_some() && written.contains(&orphan.session.conn) {
            continue;
        }
        write(&shared, &orphan, death.clone()).await;
    }
}

/// True when dispatch is dead; false when a living one accounts for its sessions, or when we are to
/// stop.
async fn died(shared: &Arc<Shared>, dispatch: DispatchProcess) -> bool {
    let DispatchProcess { id, pid, process } = dispatch;
    let process = process.and_then(|fd| poll::readable(fd).ok());
    let broke = Instant::now();
    let mut back_since = None;
    loop {
        let gone = match &process {
            // Readable when the whole process has ended; by then the kernel has closed all of its
            // sockets.
            Some(process) => tokio::time::timeout(LOOK, process.readable()).await.is_ok(),
            None => {
                tokio::time::sleep(LOOK).await;
                match pid {
                    // It was dead already when we wanted to hold on to it.
                    Some(_) => true,
                    None => broke.elapsed() >= GRACE,
                }
            }
        };
        if shared.sessions().count(id) == 0 {
            return false;
        }
        if gone {
            return true;
        }
        if shared.is_stopping() {
            return false;
        }
        let back = shared.is_connected(pid);
        back_since = back.then(|| back_since.unwrap_or_else(Instant::now));
        if back_since.is_some_and(|since| since.elapsed() >= RETELL) {
            let left = shared.sessions().take(id).len();
            tracing::info!(pid, sessions = left, "dispatch is back and no longer has these sessions");
            return false;
        }
    }
}

async fn write(shared: &Arc<Shared>, orphan: &Entry, death: DispatchDeath) {
    let evidence = Evidence {
        relay: None,
        kernel: gather(shared, Some(orphan), LateEvents::No).await,
        burst: None,
        dispatch_died: Some(death),
    };
    let record = t3_record::assemble(&orphan.session, &evidence);
    let mut fields = record.to_fields();
    // So that `journalctl -u t3-dispatch` shows it (systemd.journal-fields(7)).
    fields.push(("OBJECT_SYSTEMD_UNIT".into(), "t3-dispatch.service".to_owned()));
    drop(shared.records.write(fields));
    shared.subscribers.publish(FromTrace::Closed { record: Box::new(record) });
}
