//! Phases of an attempt; kept outside of it, so that an attempt that times out still has its phase.

use std::sync::{Arc, Mutex, PoisonError};

use t3_record::probe::{Phase, Reason};
use tokio::time::{Duration, Instant};

/// A failed attempt, or the end of an established leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    /// Description, one line.
    pub detail: String,
}

impl Failure {
    /// Takes the text of an error and its sources.
    #[must_use]
    pub fn new(reason: Reason, error: &dyn std::error::Error) -> Self {
        let mut detail = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !detail.contains(&more) {
                detail.push_str(": ");
                detail.push_str(&more);
            }
            cause = error.source();
        }
        Self { reason, detail }
    }
}

#[derive(Debug, Default)]
struct Steps {
    done: Vec<(Phase, Duration)>,
    now: Option<(Phase, Instant)>,
    address: Option<String>,
}

/// Phases of one attempt.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Steps>>);

impl Progress {
    /// Starts a phase; the previous one is complete.
    pub fn begin(&self, phase: Phase) {
        let now = Instant::now();
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, since)) = steps.now.replace((phase, now))
            && before != Phase::Echo
        {
            steps.done.push((before, now - since));
        }
    }

    /// Sets the address in use.
    pub fn address(&self, address: impl ToString) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).address = Some(address.to_string());
    }

    /// Current phase, and the time since it began.
    #[must_use]
    pub fn now(&self) -> (Phase, Duration) {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        steps.now.map_or((Phase::Dns, Duration::ZERO), |(phase, since)| (phase, since.elapsed()))
    }

    /// Completed phases with their durations, and the address.
    #[must_use]
    pub fn done(&self) -> (Vec<(Phase, Duration)>, Option<String>) {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (steps.done.clone(), steps.address.clone())
    }
}
