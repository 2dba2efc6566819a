//! Heartbeats recognised by size and period, without their text: small messages of one side, of
//! stable size, at a stable period, that do not answer the other side.
//!
//! Pure; one value per sender. Needed for sessions with permessage-deflate and for applications
//! other than t3. Sizes and periods are those of t3 clients (facts, D.4): a compressed ping has 4
//! to 17 bytes and comes every 5.000 to 5.006 s. The acknowledgement of a chunk has the same size,
//! but follows a frame of serve by one round trip; a message shortly after a frame of the other
//! side therefore teaches nothing.

use serde::{Deserialize, Serialize};
use t3_record::evidence::Nanos;

/// Largest payload of a heartbeat, in bytes. An RPC request of t3 has 73 and more, compressed or
/// not (facts, D.4).
const SMALL: u64 = 64;
/// Time after a frame of the other side in which a message can be its answer: the round trip of a
/// slow line.
const ANSWER: Nanos = 400_000_000;
/// Shortest period.
const SHORTEST: Nanos = 1_000_000_000;
/// A user can send a few messages regularly at shorter intervals, but not at longer ones: a shorter
/// period needs five messages without any other between them.
const SLOWEST_USER: Nanos = 2_000_000_000;
/// Messages read within this time were sent apart and had queued up.
const QUEUED: Nanos = 5_000_000;
/// A compressed ping has up to this size: usually 4 or 5 bytes, more after other data (facts, D.4).
const COMPRESSED: u16 = 17;
/// Difference in size between two heartbeats of one application: a counter gains a digit.
const SIZE_STEP: u16 = 2;
/// Remembered messages.
const MEMORY: usize = 12;
/// Messages of one kind that are compared: five intervals.
const CHAIN: usize = 6;
/// Silent periods after which the period is learned again.
const MISSED: u64 = 24;

/// One recognised heartbeat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Beat {
    /// Time of its last byte.
    pub at: Nanos,
    /// Time of the first frame of the other side after it.
    pub answer: Option<Nanos>,
}

/// A remembered message. Each session without a text heartbeat has two dozen, so they are small.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Candidate {
    at: Nanos,
    /// Time until the first frame of the other side, in microseconds, at least 1; 0 if there was
    /// none.
    answered_after: u32,
    size: u16,
    is_counted: bool,
}

impl Candidate {
    fn beat(&self) -> Beat {
        let after = Nanos::from(self.answered_after) * 1_000;
        Beat { at: self.at, answer: (after > 0).then(|| self.at.saturating_add(after)) }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Lock {
    period: Nanos,
    size: u16,
    last: Nanos,
    /// The last heartbeat came late, so that others may have queued up behind it.
    is_late: bool,
    /// Heartbeats at their time, those that taught the period included.
    on_time: u32,
    /// Other small messages since the first of them that do not answer the other side, and
    /// heartbeats at another time.
    others: u32,
}

/// Recogniser of the heartbeat of one sender.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rhythm {
    is_compressed: bool,
    /// Newest last.
    recent: [Candidate; MEMORY],
    known: usize,
    other_at: Option<Nanos>,
    lock: Option<Lock>,
}

impl Rhythm {
    /// Whether a rhythm from another process can be used.
    pub(super) fn is_possible(&self) -> bool {
        self.known <= MEMORY && self.lock.is_none_or(|lock| lock.period >= SHORTEST)
    }

    /// Creates a recogniser. `is_compressed`: an extension compresses messages.
    #[must_use]
    pub fn new(is_compressed: bool) -> Self {
        Self { is_compressed, ..Self::default() }
    }

    /// Learned period in nanoseconds; `None` until a heartbeat is recognised.
    #[must_use]
    pub fn period(&self) -> Option<Nanos> {
        self.lock.map(|lock| lock.period)
    }

    /// The sender has a timer, not a user: most of its small messages are heartbeats at their time.
    /// A period that a user's messages have by chance lies between other messages.
    #[must_use]
    pub fn is_regular(&self) -> bool {
        self.lock.is_some_and(|lock| lock.others.saturating_mul(2) <= lock.on_time)
    }

    /// Reads a frame of the other side.
    pub fn other(&mut self, at: Nanos) {
        self.other_at = Some(at);
        let first = MEMORY - self.known;
        for candidate in &mut self.recent[first..] {
            if !candidate.is_counted && candidate.answered_after == 0 {
                let after = at.saturating_sub(candidate.at) / 1_000;
                candidate.answered_after = u32::try_from(after).unwrap_or(u32::MAX).max(1);
            }
        }
    }

    /// Reads a complete message of this sender with `size` bytes of payload. Calls `count` for each
    /// heartbeat that is recognised by it, oldest first: the messages that taught the period come
    /// together.
    pub fn own(&mut self, size: u64, at: Nanos, mut count: impl FnMut(Beat)) {
        let Ok(size) = u16::try_from(size) else { return };
        if u64::from(size) > SMALL {
            return;
        }
        let is_answer = self.other_at.is_some_and(|other| at.saturating_sub(other) < ANSWER);
        if let Some(lock) = self.lock {
            let gap = at.saturating_sub(lock.last);
            if gap > lock.period.saturating_mul(MISSED) {
                self.lock = None;
            } else if self.is_same_kind(lock.size, size) && is_due(&lock, gap, is_answer) {
                let is_late = gap > lock.period + lock.period / 2 || (lock.is_late && gap < QUEUED);
                let size = if size > SIZE_STEP + lock.size { lock.size } else { size };
                let is_on_time = is_on_time(&lock, gap);
                let is_odd = !is_on_time && !is_queued(&lock, gap);
                let on_time = lock.on_time.saturating_add(u32::from(is_on_time));
                let others = lock.others.saturating_add(u32::from(is_odd));
                self.lock = Some(Lock { last: at, is_late, size, on_time, others, ..lock });
                self.remember(size, at, true);
                self.learn(&mut count);
                return count(Beat { at, answer: None });
            }
        }
        if !is_answer {
            if let Some(lock) = &mut self.lock {
                lock.others = lock.others.saturating_add(1);
            }
            self.remember(size, at, false);
            self.learn(&mut count);
        }
    }

    fn is_same_kind(&self, one: u16, other: u16) -> bool {
        one.abs_diff(other) <= SIZE_STEP || (self.is_compressed && one.max(other) <= COMPRESSED)
    }

    fn remember(&mut self, size: u16, at: Nanos, is_counted: bool) {
        self.recent.rotate_left(1);
        self.recent[MEMORY - 1] = Candidate { at, answered_after: 0, size, is_counted };
        self.known = (self.known + 1).min(MEMORY);
    }

    /// Sets the period when the newest messages of one kind have one: three intervals that agree
    /// within 0.5 %, or four that agree within 1 % with at most one other message between them. A
    /// period below [`SLOWEST_USER`] needs four intervals and no other message.
    fn learn(&mut self, count: &mut impl FnMut(Beat)) {
        let newest = self.recent[MEMORY - 1];
        // Newest first.
        let mut kind = [0; CHAIN];
        let mut found = 0;
        for n in (MEMORY - self.known..MEMORY).rev() {
            if found < CHAIN && self.is_same_kind(self.recent[n].size, newest.size) {
                kind[found] = n;
                found += 1;
            }
        }
        let kind = &kind[..found];
        // Number of messages, and the one that is passed over (0: none).
        let strict = (4, 0, 200, 12_000_000);
        let tolerant = (0..CHAIN - 1).map(|skipped| (5 + usize::from(skipped > 0), skipped, 100, 20_000_000));
        let chains = std::iter::once(strict).chain(tolerant);
        let Some((members, length, period)) = chains
            .filter_map(|(length, skipped, part, least)| Some((kind.get(..length)?, skipped, part, least)))
            .find_map(|(chain, skipped, part, least)| {
                let (mut members, mut times, mut length) = ([0; CHAIN], [0; CHAIN], 0);
                for (place, n) in chain.iter().enumerate() {
                    if skipped == 0 || place != skipped {
                        (members[length], times[length]) = (*n, self.recent[*n].at);
                        length += 1;
                    }
                }
                let period = period_of(&times[..length], part, least)?;
                if period < SLOWEST_USER && (length < 5 || skipped > 0) {
                    return None;
                }
                Some((members, length, period))
            })
        else {
            return;
        };
        for n in members[..length].iter().rev() {
            let candidate = &mut self.recent[*n];
            if !candidate.is_counted {
                candidate.is_counted = true;
                count(candidate.beat());
            }
        }
        let (on_time, others) = match self.lock {
            // The same period again.
            Some(lock) if lock.period.abs_diff(period) <= period / 20 => (lock.on_time, lock.others),
            _ => {
                let oldest = members[..length].iter().min().copied().unwrap_or(MEMORY - 1);
                let on_time = u32::try_from(length).unwrap_or(u32::MAX);
                (on_time, u32::try_from(MEMORY - oldest - length).unwrap_or(u32::MAX))
            }
        };
        let (size, last) = (newest.size, newest.at);
        self.lock = Some(Lock { period, size, last, is_late: false, on_time, others });
    }
}

/// Mean interval of messages at `times`, newest first, if every interval is within 1/`part` of it
/// or within `least` nanoseconds.
fn period_of(times: &[Nanos], part: u64, least: Nanos) -> Option<Nanos> {
    let (newest, oldest) = (*times.first()?, *times.last()?);
    let intervals = u64::try_from(times.len().checked_sub(1)?).ok()?;
    let mean = newest.saturating_sub(oldest).checked_div(intervals)?;
    let tolerance = (mean / part).max(least);
    let is_stable = times.windows(2).all(|pair| pair[0].saturating_sub(pair[1]).abs_diff(mean) <= tolerance);
    (is_stable && mean >= SHORTEST).then_some(mean)
}

/// Whether a message that comes `gap` after the last heartbeat is the next one: at a multiple of
/// the period, queued behind a late one, or a message of its own accord after most of a period
/// (timers of a tab in the background, a restarted timer).
fn is_due(lock: &Lock, gap: Nanos, is_answer: bool) -> bool {
    is_on_time(lock, gap) || is_queued(lock, gap) || (!is_answer && gap >= lock.period / 5 * 4)
}

/// At a multiple of the period.
fn is_on_time(lock: &Lock, gap: Nanos) -> bool {
    let periods = (gap + lock.period / 2) / lock.period;
    let tolerance = (lock.period / 20).max(150_000_000).saturating_add(periods * lock.period / 500);
    periods >= 1 && gap.abs_diff(periods * lock.period) <= tolerance
}

/// Queued behind a heartbeat that came late.
const fn is_queued(lock: &Lock, gap: Nanos) -> bool {
    lock.is_late && gap < QUEUED
}

#[cfg(test)]
mod tests;
