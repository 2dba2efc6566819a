//! Evidence that does not keep: how the machine was when the end began to show.
//!
//! A stalled serve may take a minute to answer a Close or to end its leg, and Chromium waits for
//! the answer that long. What the kernel knows of the sockets is complete only then, but pressure
//! and the state of the process are those of a minute later, so they are asked for at once, unless
//! the session is over by itself within a moment.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use t3_record::evidence::KernelFacts;
use tokio::task::JoinHandle;

use crate::evidence::client::Trace;

const MOMENT: Duration = Duration::from_millis(100);

/// What was answered.
#[derive(Debug)]
pub struct EarlyAnswer {
    /// The answer.
    pub facts: KernelFacts,
    /// It was waited for only now.
    pub fresh: bool,
}

/// A question that is asked unless it turns out to be unnecessary.
#[derive(Debug)]
pub struct EarlyEvidence {
    asked: Arc<AtomicBool>,
    answer: JoinHandle<KernelFacts>,
}

impl EarlyEvidence {
    /// The end of `conn` has just begun to show.
    #[must_use]
    pub fn start(trace: Trace, conn: String) -> Self {
        let asked = Arc::new(AtomicBool::new(false));
        let asking = Arc::clone(&asked);
        let answer = tokio::spawn(async move {
            tokio::time::sleep(MOMENT).await;
            asking.store(true, Ordering::Release);
            trace.ask(&conn).await
        });
        Self { asked, answer }
    }

    /// The answer, if the question was asked.
    pub async fn finish(self) -> Option<EarlyAnswer> {
        if self.asked.load(Ordering::Acquire) {
            let fresh = !self.answer.is_finished();
            return self.answer.await.ok().map(|facts| EarlyAnswer { facts, fresh });
        }
        self.answer.abort();
        None
    }
}

/// The later answer, with what does not keep taken from the earlier one.
#[must_use]
pub fn merge(early: Option<KernelFacts>, mut late: KernelFacts) -> KernelFacts {
    let Some(early) = early else { return late };
    late.pressure = early.pressure.or(late.pressure);
    late.host = early.host.or(late.host);
    late.memory = early.memory.or(late.memory);
    if let (Some(then), Some(now)) = (early.peer, &mut late.peer)
        && then.task.pid == now.task.pid
    {
        now.halted = then.halted;
    }
    late.lost += early.lost;
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
                task: Task { pid: 7, comm: "t3".to_owned() },
                fate: Fate::Alive,
                ended_at: None,
                killer: None,
                signalled_at: None,
                victim_argv: None,
                halted,
            }),
            memory: Some(Memory { current: Some(current), ..Memory::default() }),
            up: Some(SocketFacts { fin_in, ..SocketFacts::default() }),
            lost: 1,
            ..KernelFacts::absent(KernelSource::Tracepoint)
        }
    }

    #[test]
    fn the_machine_is_that_of_the_beginning_of_the_end_and_the_sockets_are_those_of_the_last() {
        let merged = merge(Some(facts(Some(Halt::Stopped), 10, None)), facts(None, 20, Some(5)));
        assert_eq!(merged.peer.unwrap().halted, Some(Halt::Stopped));
        assert_eq!(merged.memory.unwrap().current, Some(10));
        assert_eq!((merged.up.unwrap().fin_in, merged.lost), (Some(5), 2));
        let nothing = KernelFacts::absent(KernelSource::Timeout);
        assert_eq!(merge(Some(nothing), facts(None, 20, None)).memory.unwrap().current, Some(20));
    }
}
