//! How many WebSockets there may be, and how fast one user may open them. Pure: counters and times,
//! no clock, no sockets.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use t3_record::evidence::Nanos;

/// Places for WebSockets, in all and for each user.
#[derive(Debug)]
pub struct SessionQuota {
    max: usize,
    max_per_user: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    per_user: HashMap<String, usize>,
}

/// No place is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaExceeded {
    /// For anybody.
    Total,
    /// For this user.
    User,
}

impl SessionQuota {
    /// At most `most` places, and `most_each` for one user.
    #[must_use]
    pub fn new(max: usize, max_per_user: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_user, open: Mutex::default() })
    }

    /// Takes a place for as long as the [`SessionPermit`] lives.
    ///
    /// # Errors
    /// [`QuotaExceeded`] when there is none.
    pub fn acquire(self: &Arc<Self>, user: &str) -> Result<SessionPermit, QuotaExceeded> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.max {
            return Err(QuotaExceeded::Total);
        }
        let own = open.per_user.get(user).copied().unwrap_or(0);
        if own >= self.max_per_user {
            return Err(QuotaExceeded::User);
        }
        open.total += 1;
        open.per_user.insert(user.to_owned(), own + 1);
        Ok(SessionPermit { quota: Arc::clone(self), user: user.to_owned() })
    }

    /// How many are open, and by how many users.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        (open.total, open.per_user.len())
    }
}

/// A taken place; dropping it gives it back.
#[derive(Debug)]
#[must_use]
pub struct SessionPermit {
    quota: Arc<SessionQuota>,
    user: String,
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        let mut open = self.quota.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        if let Some(own) = open.per_user.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                open.per_user.remove(&self.user);
            }
        }
    }
}

/// How fast one may go: a token bucket, kept as the one time at which it would be full again.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    interval: Nanos,
    tolerance: Nanos,
}

impl TokenBucket {
    /// `rate` in a second in the long run, `burst` at once.
    #[must_use]
    pub fn new(rate: NonZeroU32, burst: NonZeroU32) -> Self {
        let interval = 1_000_000_000 / Nanos::from(rate.get());
        Self { interval, tolerance: interval * Nanos::from(burst.get() - 1) }
    }

    /// Takes a token from a bucket that is full at `full_at`; gives the time at which it is full
    /// then, or how long to wait for a token.
    fn take(self, full_at: Nanos, now: Nanos) -> Result<Nanos, Duration> {
        let full_at = full_at.max(now);
        match (full_at - now).checked_sub(self.tolerance) {
            None | Some(0) => Ok(full_at + self.interval),
            Some(wait) => Err(Duration::from_nanos(wait)),
        }
    }
}

/// A bucket for each user. One that is full again is as good as none: it is forgotten.
#[derive(Debug)]
pub struct RateLimiter {
    bucket: TokenBucket,
    full_at: HashMap<String, Nanos>,
    prune_at: usize,
}

/// Below this many buckets nothing is forgotten.
const PRUNE_ABOVE: usize = 64;

impl RateLimiter {
    /// All buckets full.
    #[must_use]
    pub fn new(bucket: TokenBucket) -> Self {
        Self { bucket, full_at: HashMap::new(), prune_at: PRUNE_ABOVE }
    }

    /// One more by this user.
    ///
    /// # Errors
    /// How long until the next is allowed.
    pub fn acquire(&mut self, user: &str, now: Nanos) -> Result<(), Duration> {
        if let Some(full_at) = self.full_at.get_mut(user) {
            *full_at = self.bucket.take(*full_at, now)?;
            return Ok(());
        }
        if self.full_at.len() >= self.prune_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.prune_at = (self.full_at.len() * 2).max(PRUNE_ABOVE);
        }
        let full_at = self.bucket.take(now, now)?;
        self.full_at.insert(user.to_owned(), full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn limiter(rate: u32, burst: u32) -> RateLimiter {
        RateLimiter::new(TokenBucket::new(NonZeroU32::new(rate).unwrap(), NonZeroU32::new(burst).unwrap()))
    }

    #[test]
    fn seats_are_counted_in_all_and_for_each_user_and_come_back() {
        let quota = SessionQuota::new(3, 2);
        let ann = [quota.acquire("ann").unwrap(), quota.acquire("ann").unwrap()];
        assert_eq!(quota.acquire("ann").unwrap_err(), QuotaExceeded::User);
        let bob = quota.acquire("bob").unwrap();
        assert_eq!(quota.acquire("bob").unwrap_err(), QuotaExceeded::Total);
        drop(ann);
        let again = quota.acquire("bob").unwrap();
        assert_eq!(quota.in_use(), (2, 1));
        drop((bob, again));
        assert_eq!(quota.in_use(), (0, 0), "a user without a session is not remembered");
    }

    #[test]
    fn a_burst_passes_at_once_and_then_it_is_the_rate() {
        let mut limiter = limiter(2, 5);
        for _ in 0..5 {
            assert_eq!(limiter.acquire("ann", SECOND), Ok(()));
        }
        assert_eq!(limiter.acquire("ann", SECOND), Err(Duration::from_millis(500)));
        assert_eq!(limiter.acquire("bob", SECOND), Ok(()), "another user has a bucket of his own");
        assert_eq!(limiter.acquire("ann", SECOND + SECOND / 2), Ok(()));
        assert_eq!(limiter.acquire("ann", SECOND + SECOND / 2), Err(Duration::from_millis(500)));
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let mut limiter = limiter(10, 5);
        for second in 0..100 {
            for user in 0..100 {
                limiter.acquire(&format!("{second}-{user}"), second * SECOND).unwrap();
            }
            assert!(limiter.full_at.len() <= 200, "{}", limiter.full_at.len());
        }
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_more_than_the_burst_and_the_rate(
            rate in 1_u32..50, burst in 1_u32..20, pauses in prop::collection::vec(0_u64..SECOND, 1..200)
        ) {
            let mut limiter = limiter(rate, burst);
            let (mut now, mut passed) = (0, Vec::new());
            for pause in pauses {
                now += pause / 4;
                match limiter.acquire("ann", now) {
                    Ok(()) => passed.push(now),
                    Err(wait) => {
                        prop_assert!(limiter.bucket.take(limiter.full_at["ann"], now + u64::try_from(wait.as_nanos()).unwrap()).is_ok());
                    }
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (to - from) / (SECOND / u64::from(rate));
                    prop_assert!((last - first + 1) as u64 <= most);
                }
            }
        }

        #[test]
        fn who_keeps_to_the_rate_is_never_refused(
            rate in 1_u32..50, pauses in prop::collection::vec(0_u64..SECOND, 1..100)
        ) {
            let mut limiter = limiter(rate, 1);
            let mut now = 0;
            for pause in pauses {
                now += SECOND / u64::from(rate) + pause;
                prop_assert_eq!(limiter.acquire("ann", now), Ok(()));
            }
        }
    }
}
