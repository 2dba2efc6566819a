//! Phases of an attempt; kept outside of it, so that an attempt that times out still has its phase.

use std::sync::{Arc, Mutex, PoisonError};

use t3_record::probe::{LegFault, Phase, Reason};
use tokio::time::{Duration, Instant};

/// A failed attempt, or the end of an established leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    /// Description, one line.
    pub detail: String,
}

impl Failure {
    /// A failure with a text that can come from a peer: control characters become spaces.
    #[must_use]
    pub fn with_text(reason: Reason, text: &str) -> Self {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        Self { reason, detail: text.chars().map(printable).collect::<String>().trim_end().to_owned() }
    }

    /// The failure of a leg in this phase.
    #[must_use]
    pub fn in_phase(&self, phase: Phase) -> LegFault {
        LegFault::Failed { reason: self.reason, phase, detail: self.detail.clone() }
    }

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
        Self::with_text(reason, &detail)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_a_peer_is_one_line_without_control_characters() {
        let failure = Failure::with_text(Reason::ClosedClose, "Close 1000 \u{1b}[31mbye\r\nResult: clean\n");
        assert_eq!(failure.detail, "Close 1000  [31mbye  Result: clean");
        let error = std::io::Error::other("no\u{7}bell");
        assert_eq!(Failure::new(Reason::IoError, &error).detail, "no bell");
    }
}
