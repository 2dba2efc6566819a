//! Delay between two attempts: doubles up to a limit. The collector can ask for a longer one. Pure.

use std::time::Duration;

/// First delay.
const FIRST: Duration = Duration::from_secs(1);

/// Delays of one request.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// Delays of 1 s, 2 s and so on, up to `most`.
    #[must_use]
    pub fn new(most: Duration) -> Self {
        Self { next: FIRST.min(most), most }
    }

    /// Returns the next delay; `asked` is that of the collector (`Retry-After`, RFC 9110 section
    /// 10.2.3), and counts up to the limit.
    pub fn delay(&mut self, asked: Option<Duration>) -> Duration {
        let delay = self.next.max(asked.unwrap_or_default()).min(self.most);
        self.next = self.next.saturating_mul(2).min(self.most);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit() {
        let mut backoff = Backoff::new(Duration::from_secs(5));
        let delays = [(); 5].map(|()| backoff.delay(None).as_secs());
        assert_eq!(delays, [1, 2, 4, 5, 5]);
    }

    #[test]
    fn the_collector_can_ask_for_more_up_to_the_limit() {
        let mut backoff = Backoff::new(Duration::from_secs(5));
        assert_eq!(backoff.delay(Some(Duration::from_secs(3))).as_secs(), 3);
        assert_eq!(backoff.delay(Some(Duration::from_secs(600))).as_secs(), 5);
    }
}
