//! A timeout that counts only the time in which this process ran.
//!
//! The clock continues while a process is stopped or its host is paused. After that, the timer of
//! [`tokio::time::timeout`] expires before the reply that arrived meanwhile is read, and the peer
//! would be blamed for the pause.

use std::time::Duration;

use tokio::time::{self, Instant, error::Elapsed};

/// The time is counted in parts of this length; one that ends late is not counted.
const PART: Duration = Duration::from_millis(500);
/// Delay of a timer from which its part is not counted: a busy host is not a pause.
const LATE: Duration = Duration::from_millis(500);

/// As [`tokio::time::timeout`], in time that this process ran.
///
/// # Errors
/// [`Elapsed`] if the future did not finish within `limit`.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    tokio::pin!(future);
    let mut left = limit;
    loop {
        let part = left.min(PART);
        let due = Instant::now() + part;
        match time::timeout_at(due, &mut future).await {
            Err(_) if due.elapsed() >= LATE => {}
            Err(_) if left > part => left -= part,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(6);

    #[tokio::test(start_paused = true)]
    async fn it_expires_after_its_limit() {
        for limit in [Duration::ZERO, Duration::from_millis(1), PART, LIMIT, LIMIT + PART / 3] {
            let began = Instant::now();
            assert!(timeout(limit, std::future::pending::<()>()).await.is_err());
            let elapsed = began.elapsed();
            // Timers have a resolution of one millisecond.
            assert!(
                elapsed >= limit && elapsed < limit + Duration::from_millis(20),
                "{limit:?}: {elapsed:?}"
            );
        }
        assert!(timeout(LIMIT, sleep(LIMIT - PART)).await.is_ok());
        assert!(timeout(LIMIT, sleep(LIMIT + PART)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_not_counted_wherever_it_is() {
        for before in [Duration::ZERO, PART / 2, LIMIT - PART / 2] {
            let waiting = tokio::spawn(timeout(LIMIT, std::future::pending::<()>()));
            let began = Instant::now();
            tokio::task::yield_now().await;
            sleep(before).await;
            advance(2 * LIMIT).await;
            sleep(PART / 4).await;
            assert!(!waiting.is_finished(), "{before:?}");
            assert!(waiting.await.unwrap().is_err());
            let elapsed = began.elapsed();
            let pause = 2 * LIMIT;
            assert!(elapsed >= LIMIT + pause - PART && elapsed <= LIMIT + pause + 2 * PART, "{elapsed:?}");
        }
    }
}
