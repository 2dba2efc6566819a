//! Records of sessions whose dispatch process exited.
//!
//! A running dispatch writes its own records, connected or not: the daemon only waits for it. The
//! records of an exited one are made here, while the kernel has the evidence; those of kept
//! sessions when no successor can continue them any more ([`crate::pick_up`]).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use t3_record::{
    CloseRecord, Evidence, Reconciled,
    evidence::{DispatchDeath, Nanos},
    reconcile::mark,
    wire::FromTrace,
};
use t3_trace_host::{
    clock::{self, monotonic},
    kernel::ProcessFacts,
};

use crate::{
    dispatch_process::DispatchProcess,
    evidence::{LateEvents, gather},
    moments::Moment,
    poll, reconcile,
    sessions::{ConnectionId, Entry},
    state::Shared,
};

/// Time to reconnect for a dispatch whose exit cannot be observed.
const GRACE: Duration = Duration::from_secs(2);
/// Time to register its sessions again for a reconnected dispatch.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Age from which the record of a kept session has the time of its end.
const LATE: Nanos = clock::SECOND;
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Waits for the outcome of a broken connection, and writes the records of the sessions that
/// dispatch left behind.
pub(crate) async fn handle_disconnect(
    shared: Arc<Shared>,
    dispatch: DispatchProcess,
    disconnected_at: Nanos,
) {
    let id = dispatch.id;
    let pid = dispatch.pid;
    if has_exited(&shared, dispatch).await {
        shared.pick_ups().exited(id, monotonic());
        settle(&shared, id, pid, disconnected_at).await;
    }
    shared.pick_ups().settled(id);
}

/// Writes the records of the sessions of an exited dispatch: immediately, or, of kept ones, when
/// its successor is not awaited any more.
async fn settle(shared: &Arc<Shared>, id: ConnectionId, pid: Option<u32>, disconnected_at: Nanos) {
    // The kernel side does not keep the facts of the process for as long as a successor is awaited.
    let facts = pid.and_then(|pid| shared.kernel().process(pid));
    let death = death(facts.as_ref(), disconnected_at);
    let mut has_logged_wait = false;
    loop {
        let (orphans, waiting) = {
            let mut sessions = shared.sessions();
            let is_awaited = shared.pick_ups().is_awaited(id, monotonic());
            (sessions.take(id, is_awaited), sessions.count(id))
        };
        if !orphans.is_empty() {
            let fate = death.fate.map(tracing::field::debug);
            let sessions = orphans.len();
            tracing::warn!(pid, fate, sessions, "dispatch exited; writing the records of its sessions");
            write_records(shared, orphans, pid, &death).await;
        }
        // The spool has the sessions that wait: the next daemon waits for the successor again.
        if waiting == 0 || shared.is_stopping() {
            return;
        }
        if !has_logged_wait {
            tracing::info!(
                pid,
                sessions = waiting,
                "dispatch exited; its kept sessions wait for its successor"
            );
            has_logged_wait = true;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn write_records(shared: &Arc<Shared>, orphans: Vec<Entry>, pid: Option<u32>, death: &DispatchDeath) {
    // All of them ended with dispatch.
    let moment = shared.moments.next().await;
    for orphan in orphans {
        let is_claimed =
            shared.reconciler.as_ref().is_none_or(|reconciler| reconciler.claim(&orphan.session, pid));
        if !is_claimed {
            continue;
        }
        let record = record(shared, &orphan, death.clone(), &moment).await;
        // A successor that was not awaited any more may have registered it in the meantime.
        if !shared.sessions().contains(&orphan.session.conn) {
            write(shared, record);
        } else if let Some(reconciler) = &shared.reconciler {
            reconciler.release(&orphan.session.conn);
        }
    }
    if let Some(reconciler) = &shared.reconciler {
        reconciler.wake();
    }
}

/// Death of dispatch. It counts from its fatal signal: while it writes a core dump, its peers give
/// up.
fn death(facts: Option<&ProcessFacts>, disconnected_at: Nanos) -> DispatchDeath {
    let signalled_at = facts.and_then(|facts| facts.signalled_at);
    let ended_at = facts.and_then(|facts| facts.ended_at);
    let at = [signalled_at, ended_at].into_iter().flatten().fold(disconnected_at, Nanos::min);
    DispatchDeath { fate: facts.map(|facts| facts.fate), at }
}

/// True when dispatch has exited; false when a running one accounts for its sessions, or the daemon
/// stops.
async fn has_exited(shared: &Arc<Shared>, dispatch: DispatchProcess) -> bool {
    let DispatchProcess { id, pid, process } = dispatch;
    let process = process.and_then(|fd| poll::readable(fd).ok());
    let broke = Instant::now();
    let mut back_since = None;
    loop {
        let gone = match &process {
            // Readable when the process has exited; by then the kernel has closed all of its
            // sockets.
            Some(process) => tokio::time::timeout(POLL_INTERVAL, process.readable()).await.is_ok(),
            None => {
                tokio::time::sleep(POLL_INTERVAL).await;
                match pid {
                    // It had exited before the pidfd was opened.
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
        if back_since.is_some_and(|since| since.elapsed() >= REGISTER_TIMEOUT) {
            let left = shared.sessions().take(id, false).len();
            tracing::info!(pid, sessions = left, "dispatch reconnected without these sessions");
            return false;
        }
    }
}

async fn record(
    shared: &Arc<Shared>,
    orphan: &Entry,
    death: DispatchDeath,
    moment: &Arc<Moment>,
) -> CloseRecord {
    let evidence = Evidence {
        relay: orphan.ending.as_deref().cloned(),
        kernel: gather(shared, Some(orphan), LateEvents::No(moment)).await,
        burst: None,
        dispatch_died: Some(death),
    };
    let mut record = t3_record::assemble(&orphan.session, &evidence);
    if let Some(opened_at) = orphan.session.opened_at.filter(|_| orphan.session.kept) {
        // It may have waited for a successor.
        let age = monotonic().saturating_sub(opened_at + record.dur_ms * 1_000_000);
        if age >= LATE {
            let ended_us = clock::realtime_us().saturating_sub(age / 1_000);
            mark(&mut record, Reconciled::Restart, ended_us);
        }
    }
    record
}

/// Leaves the record to the reconciler, which searches the journal first: dispatch may have written
/// one before it could report that. Records that do not go to the journal are written at once.
fn write(shared: &Shared, record: CloseRecord) {
    if let Some(reconciler) = &shared.reconciler {
        reconciler.abandoned(&record);
        return;
    }
    drop(shared.records.write(reconcile::fields(&record)));
    shared.subscribers.publish(FromTrace::Closed { record: Box::new(record) });
}

#[cfg(test)]
mod tests {
    use t3_record::evidence::{Fate, Task};

    use super::*;

    #[test]
    fn dispatch_dies_with_its_fatal_signal() {
        let facts = |signalled_at, ended_at| ProcessFacts {
            task: Task { pid: 7, comm: "t3-dispatch".to_owned() },
            started_boot_ns: None,
            fate: Fate::Signal(11),
            ended_at,
            killer: None,
            signalled_at,
            last_signal: None,
            oom_at: None,
        };
        let at = |signalled_at, ended_at| death(Some(&facts(signalled_at, ended_at)), 50).at;
        assert_eq!(at(Some(10), Some(40)), 10, "a core dump of 30");
        assert_eq!((at(None, Some(40)), at(None, None)), (40, 50));
        assert_eq!(death(None, 50), DispatchDeath { fate: None, at: 50 });
    }
}
