//! Limits frames: draws only after a change, and at most once per [`FRAME`]. Pure.

use std::time::Duration;

/// Minimum time between two frames.
pub const FRAME: Duration = Duration::from_millis(66);

/// Times are durations since any fixed start.
#[derive(Debug, Default)]
pub struct FrameLimiter {
    changed: bool,
    drawn_at: Option<Duration>,
}

impl FrameLimiter {
    pub const fn changed(&mut self) {
        self.changed = true;
    }

    /// Time until the next frame; `None` while nothing has changed.
    #[must_use]
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        self.changed.then(|| self.drawn_at.map_or(Duration::ZERO, |at| (at + FRAME).saturating_sub(now)))
    }

    /// Returns whether a frame is due, and marks it as drawn.
    pub fn due(&mut self, now: Duration) -> bool {
        let due = self.wait(now) == Some(Duration::ZERO);
        if due {
            (self.changed, self.drawn_at) = (false, Some(now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_within_a_frame_are_drawn_together() {
        let at = Duration::from_millis;
        let mut limiter = FrameLimiter::default();
        assert_eq!((limiter.wait(at(0)), limiter.due(at(0))), (None, false));
        limiter.changed();
        assert!(limiter.due(at(5)) && !limiter.due(at(5)));
        limiter.changed();
        assert_eq!((limiter.wait(at(20)), limiter.due(at(20))), (Some(at(51)), false));
        assert!(limiter.due(at(71)));
        assert_eq!(limiter.wait(at(1000)), None);
    }
}
