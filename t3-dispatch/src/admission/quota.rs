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
pub struct Seats {
    most: usize,
    most_each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    each: HashMap<String, usize>,
}

/// No place is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// For anybody.
    All,
    /// For this user.
    User,
}

impl Seats {
    /// At most `most` places, and `most_each` for one user.
    #[must_use]
    pub fn new(most: usize, most_each: usize) -> Arc<Self> {
        Arc::new(Self { most, most_each, taken: Mutex::default() })
    }

    /// Takes a place for as long as the [`Seat`] lives.
    ///
    /// # Errors
    /// [`Full`] when there is none.
    pub fn take(self: &Arc<Self>, user: &str) -> Result<Seat, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.most {
            return Err(Full::All);
        }
        let own = taken.each.get(user).copied().unwrap_or(0);
        if own >= self.most_each {
            return Err(Full::User);
        }
        taken.all += 1;
        taken.each.insert(user.to_owned(), own + 1);
        Ok(Seat { seats: Arc::clone(self), user: user.to_owned() })
    }

    /// How many are taken, and by how many users.
    #[must_use]
    pub fn taken(&self) -> (usize, usize) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (taken.all, taken.each.len())
    }
}

/// A taken place; dropping it gives it back.
#[derive(Debug)]
#[must_use]
pub struct Seat {
    seats: Arc<Seats>,
    user: String,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.each.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                taken.each.remove(&self.user);
            }
        }
    }
}

/// How fast one may go: a token bucket, kept as the one time at which it would be full again.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    interval: Nanos,
    tolerance: Nanos,
}

impl Pace {
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
pub struct Rates {
    pace: Pace,
    full_at: HashMap<String, Nanos>,
    tidy_at: usize,
}

/// Below this many buckets nothing is forgotten.
const FEW: usize = 64;

impl Rates {
    /// All buckets full.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, full_at: HashMap::new(), tidy_at: FEW }
    }

    /// One more by this user.
    ///
    /// # Errors
    /// How long until the next is allowed.
    pub fn take(&mut self, user: &str, now: Nanos) -> Result<(), Duration> {
        if let Some(full_at) = self.full_at.get_mut(user) {
            *full_at = self.pace.take(*full_at, now)?;
            return Ok(());
        }
        if self.full_at.len() >= self.tidy_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.tidy_at = (self.full_at.len() * 2).max(FEW);
        }
        let full_at = self.pace.take(now, now)?;
        self.full_at.insert(user.to_owned(), full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn rates(rate: u32, burst: u32) -> Rates {
        Rates::new(Pace::new(NonZeroU32::new(rate).unwrap(), NonZeroU32::new(burst).unwrap()))
    }

    #[test]
    fn seats_are_counted_in_all_and_for_each_user_and_come_back() {
        let seats = Seats::new(3, 2);
        let ann = [seats.take("ann").unwrap(), seats.take("ann").unwrap()];
        assert_eq!(seats.take("ann").unwrap_err(), Full::User);
        let bob = seats.take("bob").unwrap();
        assert_eq!(seats.take("bob").unwrap_err(), Full::All);
        drop(ann);
        let again = seats.take("bob").unwrap();
        assert_eq!(seats.taken(), (2, 1));
        drop((bob, again));
        assert_eq!(seats.taken(), (0, 0), "a user without a session is not remembered");
    }

    #[test]
    fn a_burst_passes_at_once_and_then_it_is_the_rate() {
        let mut rates = rates(2, 5);
        for _ in 0..5 {
            assert_eq!(rates.take("ann", SECOND), Ok(()));
        }
        assert_eq!(rates.take("ann", SECOND), Err(Duration::from_millis(500)));
        assert_eq!(rates.take("bob", SECOND), Ok(()), "another user has a bucket of his own");
        assert_eq!(rates.take("ann", SECOND + SECOND / 2), Ok(()));
        assert_eq!(rates.take("ann", SECOND + SECOND / 2), Err(Duration::from_millis(500)));
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let mut rates = rates(10, 5);
        for second in 0..100 {
            for user in 0..100 {
                rates.take(&format!("{second}-{user}"), second * SECOND).unwrap();
            }
            assert!(rates.full_at.len() <= 200, "{}", rates.full_at.len());
        }
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_more_than_the_burst_and_the_rate(
            rate in 1_u32..50, burst in 1_u32..20, pauses in prop::collection::vec(0_u64..SECOND, 1..200)
        ) {
            let mut rates = rates(rate, burst);
            let (mut now, mut passed) = (0, Vec::new());
            for pause in pauses {
                now += pause / 4;
                match rates.take("ann", now) {
                    Ok(()) => passed.push(now),
                    Err(wait) => {
                        prop_assert!(rates.pace.take(rates.full_at["ann"], now + u64::try_from(wait.as_nanos()).unwrap()).is_ok());
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
            let mut rates = rates(rate, 1);
            let mut now = 0;
            for pause in pauses {
                now += SECOND / u64::from(rate) + pause;
                prop_assert_eq!(rates.take("ann", now), Ok(()));
            }
        }
    }
}
