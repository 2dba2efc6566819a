//! Evidence of the first end of a session: pressure, memory and process state at that time.
//!
//! A stalled serve may take a minute to answer a Close frame or to end its leg, and Chromium waits
//! that long. The kernel's facts about the sockets are complete only then, but pressure and process
//! state would be a minute too late. They are queried after `DELAY`, unless the session has ended
//! by then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use t3_record::{KernelSource, evidence::KernelFacts};
use tokio::task::JoinHandle;

use crate::evidence::client::EvidenceClient;

/// Time in which most sessions end completely, so that no early query is needed.
const DELAY: Duration = Duration::from_millis(100);

/// Reply to an early query.
#[derive(Debug)]
pub struct EarlyAnswer {
    pub facts: KernelFacts,
    /// The reply arrived only while the record waited for it.
    pub fresh: bool,
}

/// A delayed query, cancelled when the session ends first.
#[derive(Debug)]
pub struct EarlyEvidence {
    sent: Arc<AtomicBool>,
    reply: JoinHandle<KernelFacts>,
}

impl EarlyEvidence {
    /// Starts the delay for the session `conn`, whose end has just started.
    #[must_use]
    pub fn start(evidence: EvidenceClient, conn: String) -> Self {
        let sent = Arc::new(AtomicBool::new(false));
        let sending = Arc::clone(&sent);
        let reply = tokio::spawn(async move {
            tokio::time::sleep(DELAY).await;
            sending.store(true, Ordering::Release);
            evidence.query(&conn).await
        });
        Self { sent, reply }
    }

    /// Returns the reply, if the query was sent.
    pub async fn finish(self) -> Option<EarlyAnswer> {
        if self.sent.load(Ordering::Acquire) {
            let fresh = !self.reply.is_finished();
            return self.reply.await.ok().map(|facts| EarlyAnswer { facts, fresh });
        }
        self.reply.abort();
        None
    }
}

/// Returns the later facts with pressure, host, memory and process state of the earlier ones, or
/// the earlier ones if there are no later ones (t3-trace restarted, or answered too late).
#[must_use]
pub fn merge(early: Option<KernelFacts>, mut late: KernelFacts) -> KernelFacts {
    let Some(early) = early else { return late };
    let is_absent = |source| matches!(source, KernelSource::Off | KernelSource::Timeout);
    if is_absent(late.source) && !is_absent(early.source) {
        return early;
    }
    if late.peer.is_none() {
        late.peer.clone_from(&early.peer);
    }
    late.pressure = early.pressure.or(late.pressure);
    late.host = early.host.or(late.host);
    late.memory = early.memory.or(late.memory);
    late.swap_free = early.swap_free.or(late.swap_free);
    if let (Some(first), Some(last)) = (early.peer, &mut late.peer)
        && first.task.pid == last.task.pid
    {
        last.halted = first.halted;
    }
    // The late reply covers a minute before the first query, unless t3-trace restarted since.
    if late.network.is_empty() {
        late.network = early.network;
    }
    if late.delays.is_empty() {
        late.delays = early.delays;
    }
    late.steal = late.steal.or(early.steal);
    late.lost += early.lost;
    late.is_overflowed |= early.is_overflowed;
    late
}

#[cfg(test)]
mod tests {
    use t3_record::{
        KernelSource,
        evidence::{Fate, Halt, Memory, Process, SocketFacts, Task},
    };

    use super::*;

    fn facts(halted: Option<Halt>, current: u64, fin_in: Option<u64>) -> KernelFacts {
        KernelFacts {
            peer: Some(Process {
                halted,
                ..Process::new(Task { pid: 7, comm: "t3".to_owned() }, Fate::Alive)
            }),
            memory: Some(Memory { current: Some(current), ..Memory::default() }),
            up: Some(SocketFacts { fin_in, ..SocketFacts::default() }),
            lost: 1,
            ..KernelFacts::absent(KernelSource::Tracepoint)
        }
    }

    #[test]
    fn host_state_is_of_the_first_end_and_sockets_are_of_the_last() {
        let merged = merge(Some(facts(Some(Halt::Stopped), 10, None)), facts(None, 20, Some(5)));
        assert_eq!(merged.peer.unwrap().halted, Some(Halt::Stopped));
        assert_eq!(merged.memory.unwrap().current, Some(10));
        assert_eq!((merged.up.unwrap().fin_in, merged.lost), (Some(5), 2));
        let nothing = KernelFacts::absent(KernelSource::Timeout);
        assert_eq!(merge(Some(nothing), facts(None, 20, None)).memory.unwrap().current, Some(20));
    }
}
