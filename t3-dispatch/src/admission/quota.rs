//! Quota of open WebSockets or requests per user, and rate limiter of upgrades per user. Pure; the
//! caller passes the time.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use t3_record::evidence::Nanos;

/// Limits on open WebSockets or on requests in flight, in total and per user.
#[derive(Debug)]
pub struct UserQuota {
    max: usize,
    max_per_user: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    per_user: HashMap<String, usize>,
}

/// Exhausted limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaExceeded {
    /// That for all users.
    Total,
    /// That for one user.
    User,
}

impl UserQuota {
    /// Returns a quota of `max` slots in total and `max_per_user` for one user.
    #[must_use]
    pub fn new(max: usize, max_per_user: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_user, open: Mutex::default() })
    }

    /// Acquires a slot, which dropping the [`UserPermit`] releases.
    ///
    /// # Errors
    /// [`QuotaExceeded`] when all slots are in use.
    pub fn acquire(self: &Arc<Self>, user: &str) -> Result<UserPermit, QuotaExceeded> {
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
        Ok(UserPermit { quota: Arc::clone(self), user: user.to_owned() })
    }

    /// Takes a permit whatever the limits are.
    pub fn acquire_above_limit(self: &Arc<Self>, user: &str) -> UserPermit {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total += 1;
        *open.per_user.entry(user.to_owned()).or_default() += 1;
        UserPermit { quota: Arc::clone(self), user: user.to_owned() }
    }

    /// Returns the limits: in total, and per user.
    #[must_use]
    pub const fn limits(&self) -> (usize, usize) {
        (self.max, self.max_per_user)
    }

    /// Returns the number of slots in use, and the number of their users.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        (open.total, open.per_user.len())
    }
}

/// One slot of the quota; dropping it releases the slot.
#[derive(Debug)]
#[must_use]
pub struct UserPermit {
    quota: Arc<UserQuota>,
    user: String,
}

impl Drop for UserPermit {
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

/// Parameters of a token bucket. The state of a bucket is one value: the time at which it is full
/// again.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    interval: Nanos,
    tolerance: Nanos,
}

impl TokenBucket {
    /// Returns a bucket of `burst` tokens that refills `rate` tokens per second.
    #[must_use]
    pub fn new(rate: NonZeroU32, burst: NonZeroU32) -> Self {
        let interval = 1_000_000_000 / Nanos::from(rate.get());
        Self { interval, tolerance: interval * Nanos::from(burst.get() - 1) }
    }

    /// Takes a token from a bucket that is full at `full_at`; returns its new `full_at`, or the
    /// time until the next token.
    fn take(self, full_at: Nanos, now: Nanos) -> Result<Nanos, Duration> {
        let full_at = full_at.max(now);
        match (full_at - now).checked_sub(self.tolerance) {
            None | Some(0) => Ok(full_at + self.interval),
            Some(wait) => Err(Duration::from_nanos(wait)),
        }
    }
}

/// One token bucket per user. A full bucket has no state: it is dropped.
#[derive(Debug)]
pub struct RateLimiter {
    bucket: TokenBucket,
    full_at: HashMap<String, Nanos>,
    prune_at: usize,
}

/// Number of buckets above which full ones are dropped.
const PRUNE_ABOVE: usize = 64;

impl RateLimiter {
    #[must_use]
    pub fn new(bucket: TokenBucket) -> Self {
        Self { bucket, full_at: HashMap::new(), prune_at: PRUNE_ABOVE }
    }

    /// Takes a token of this user.
    ///
    /// # Errors
    /// The time until the next token.
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
    fn permits_are_counted_in_total_and_per_user_and_released() {
        let quota = UserQuota::new(3, 2);
        let ann = [quota.acquire("ann").unwrap(), quota.acquire("ann").unwrap()];
        assert_eq!(quota.acquire("ann").unwrap_err(), QuotaExceeded::User);
        let bob = quota.acquire("bob").unwrap();
        assert_eq!(quota.acquire("bob").unwrap_err(), QuotaExceeded::Total);
        drop(ann);
        let again = quota.acquire("bob").unwrap();
        assert_eq!(quota.in_use(), (2, 1));
        drop((bob, again));
        assert_eq!(quota.in_use(), (0, 0), "a user without a session has no entry");
    }

    #[test]
    fn the_rate_applies_after_the_burst() {
        let mut limiter = limiter(2, 5);
        for _ in 0..5 {
            assert_eq!(limiter.acquire("ann", SECOND), Ok(()));
        }
        assert_eq!(limiter.acquire("ann", SECOND), Err(Duration::from_millis(500)));
        assert_eq!(limiter.acquire("bob", SECOND), Ok(()), "each user has a bucket");
        assert_eq!(limiter.acquire("ann", SECOND + SECOND / 2), Ok(()));
        assert_eq!(limiter.acquire("ann", SECOND + SECOND / 2), Err(Duration::from_millis(500)));
    }

    #[test]
    fn full_buckets_are_dropped() {
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
        fn no_interval_exceeds_burst_plus_rate(
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
        fn upgrades_at_the_rate_always_pass(
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
