//! How far an attempt has come: kept outside the attempt, so that one that is cut off at its time
//! limit still tells where it stood.

use std::sync::{Arc, Mutex, PoisonError};

use t3_record::probe::{Phase, Reason};
use tokio::time::{Duration, Instant};

/// An attempt ended badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// What was said, in a line.
    pub detail: String,
}

impl Failure {
    /// With an error's text and its causes.
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

/// The steps of one attempt.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Steps>>);

impl Progress {
    /// A phase begins; the one before is done.
    pub fn begin(&self, phase: Phase) {
        let now = Instant::now();
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, since)) = steps.now.replace((phase, now))
            && before != Phase::Echo
        {
            steps.done.push((before, now - since));
        }
    }

    /// This address is tried.
    pub fn address(&self, address: impl ToString) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).address = Some(address.to_string());
    }

    /// The phase it stands in, and for how long.
    #[must_use]
    pub fn now(&self) -> (Phase, Duration) {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        steps.now.map_or((Phase::Dns, Duration::ZERO), |(phase, since)| (phase, since.elapsed()))
    }

    /// The phases that were done, with the time each took, and the address tried.
    #[must_use]
    pub fn done(&self) -> (Vec<(Phase, Duration)>, Option<String>) {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (steps.done.clone(), steps.address.clone())
    }
}
