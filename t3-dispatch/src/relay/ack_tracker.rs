//! Delivery of serve's heartbeat replies to the client, by the ACKs of its kernel. Pure: the caller
//! passes the values read from the socket.
//!
//! On a bad path the arrival times of pings are unreliable: pings are late and arrive in batches.
//! The age of the newest acknowledged reply equals the silence that the client's watchdog observed,
//! plus one network transit.

use serde::{Deserialize, Serialize};
use t3_record::evidence::{Nanos, SocketSample};

/// Tracked unacknowledged replies; a further one replaces the newest.
const UNACKED_MAX: usize = 8;
/// Samples kept.
const SAMPLES: u32 = 16;

/// A reply in the stream towards the client.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Reply {
    /// Offset in that stream at which the reply ends.
    end: u64,
    at: Nanos,
    /// Time that serve needed for the reply.
    serve_ns: u64,
}

/// A [`SocketSample`] in memory: every session keeps sixteen.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct StoredSample {
    at: Nanos,
    /// In microseconds, at most 71 minutes.
    silence_us: u32,
    lost: u32,
}

/// Tracks which heartbeat replies of one session the client's kernel has acknowledged.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AckTracker {
    unacked: [Reply; UNACKED_MAX],
    unacked_count: u8,
    /// Time at which the newest acknowledged reply passed; before that, time of the first ping.
    acked_at: Option<Nanos>,
    /// The kernel's count of lost segments at the last sample.
    lost: Option<u32>,
    samples: [StoredSample; SAMPLES as usize],
    sample_count: u32,
}

impl AckTracker {
    /// Whether a tracker from another process can be used.
    pub(super) fn is_possible(&self) -> bool {
        usize::from(self.unacked_count) <= UNACKED_MAX
    }

    /// Starts at the first ping: from then on the client expects replies.
    pub fn start(&mut self, now: Nanos) {
        self.acked_at.get_or_insert(now);
    }

    /// Adds a reply that serve sent `serve_ns` after its ping and that ends at offset `end` of the
    /// stream towards the client.
    pub fn add_reply(&mut self, end: u64, now: Nanos, serve_ns: u64) {
        let slot = usize::from(self.unacked_count).min(UNACKED_MAX - 1);
        self.unacked[slot] = Reply { end, at: now, serve_ns };
        self.set_unacked(slot + 1);
    }

    fn set_unacked(&mut self, count: usize) {
        self.unacked_count = u8::try_from(count.min(UNACKED_MAX)).unwrap_or(0);
    }

    /// Adds a sample of the downstream socket: `acknowledged` bytes of the stream and segments
    /// `lost` so far. `waiting_since` is the time of the oldest ping that serve has not answered.
    /// Returns whether no segment was lost since the previous sample.
    pub fn sample(
        &mut self,
        now: Nanos,
        acknowledged: u64,
        lost: u32,
        waiting_since: Option<Nanos>,
        period: Option<Nanos>,
    ) -> bool {
        let unacked = &self.unacked[..self.unacked_count.into()];
        let acked = unacked.iter().take_while(|reply| reply.end <= acknowledged).count();
        if acked > 0 {
            self.acked_at = Some(self.unacked[acked - 1].at);
            self.unacked.rotate_left(acked);
            self.set_unacked(usize::from(self.unacked_count).saturating_sub(acked));
        }
        // The time that serve needed does not count as silence of the path.
        let (until, serve_ns) = match self.unacked.first().filter(|_| self.unacked_count > 0) {
            Some(reply) => (now, reply.serve_ns),
            None => (waiting_since.unwrap_or(now).min(now), 0),
        };
        let silence = self.acked_at.map_or(0, |acked| until.saturating_sub(acked).saturating_sub(serve_ns));
        let newly_lost = self.lost.map_or(0, |before| lost.saturating_sub(before));
        self.lost = Some(lost);
        let silence_us = u32::try_from(silence / 1_000).unwrap_or(u32::MAX);
        self.store(StoredSample { at: now, silence_us, lost: newly_lost }, period);
        newly_lost == 0
    }

    fn store(&mut self, sample: StoredSample, period: Option<Nanos>) {
        // Pings that arrive in a batch give one sample; otherwise they would evict the older ones.
        if let Some(last) = self.sample_count.checked_sub(1) {
            let last = &mut self.samples[(last % SAMPLES) as usize];
            if sample.at.saturating_sub(last.at) < period.unwrap_or(0) / 2 {
                last.silence_us = last.silence_us.max(sample.silence_us);
                last.lost = last.lost.saturating_add(sample.lost);
                return;
            }
        }
        self.samples[(self.sample_count % SAMPLES) as usize] = sample;
        self.sample_count = self.sample_count.saturating_add(1);
    }

    /// Time at which the oldest reply passed that was unacknowledged at the last sample.
    #[must_use]
    pub fn unacknowledged_since(&self) -> Option<Nanos> {
        self.unacked[..self.unacked_count.into()].first().map(|reply| reply.at)
    }

    /// The last samples, oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<SocketSample> {
        let first = self.sample_count.saturating_sub(SAMPLES);
        let sample = |n: u32| {
            let StoredSample { at, silence_us, lost } = self.samples[(n % SAMPLES) as usize];
            SocketSample { at, silence_ns: u64::from(silence_us) * 1_000, lost }
        };
        (first..self.sample_count).map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const PERIOD: Option<Nanos> = Some(5 * SECOND);

    fn silence(tracker: &AckTracker) -> u64 {
        tracker.samples().last().unwrap().silence_ns / SECOND
    }

    /// A ping every period, each answered immediately with ten bytes and acknowledged before the
    /// next.
    fn healthy(pings: u64) -> AckTracker {
        let mut tracker = AckTracker::default();
        tracker.start(0);
        for n in 0..pings {
            tracker.sample(n * 5 * SECOND, n * 10, 0, Some(n * 5 * SECOND), PERIOD);
            tracker.add_reply((n + 1) * 10, n * 5 * SECOND, 0);
        }
        tracker
    }

    #[test]
    fn an_acknowledged_reply_ends_the_silence_and_a_due_ping_starts_none() {
        let tracker = healthy(4);
        assert!(tracker.samples().iter().all(|sample| sample.silence_ns <= 5 * SECOND && sample.lost == 0));
        assert_eq!(silence(&tracker), 5);
    }

    #[test]
    fn an_unacknowledged_reply_does_not_end_the_silence() {
        let mut tracker = healthy(4);
        tracker.sample(20 * SECOND, 30, 2, Some(20 * SECOND), PERIOD);
        assert_eq!(silence(&tracker), 10);
        tracker.add_reply(50, 20 * SECOND, 0);
        tracker.sample(25 * SECOND, 49, 5, None, PERIOD);
        assert_eq!((silence(&tracker), tracker.samples().last().unwrap().lost), (10, 3));
    }

    #[test]
    fn missing_pings_count_as_silence() {
        let mut tracker = healthy(4);
        tracker.sample(33 * SECOND, 40, 0, Some(33 * SECOND), PERIOD);
        assert_eq!(silence(&tracker), 18);
    }

    #[test]
    fn the_reply_time_of_serve_does_not_count_as_silence() {
        let mut tracker = healthy(4);
        // serve has not answered the ping of 20 s: from then on the client waits for serve.
        tracker.sample(40 * SECOND, 40, 0, Some(20 * SECOND), PERIOD);
        assert_eq!(silence(&tracker), 5);
        tracker.add_reply(50, 40 * SECOND, 20 * SECOND);
        tracker.sample(45 * SECOND, 40, 0, None, PERIOD);
        assert_eq!(silence(&tracker), 10);
    }

    #[test]
    fn a_batch_of_pings_is_one_sample_with_the_worst_values() {
        let mut tracker = healthy(4);
        for n in 0..40 {
            tracker.sample(40 * SECOND + n, 40, 7, None, PERIOD);
            tracker.add_reply(50 + n, 40 * SECOND + n, 0);
        }
        let samples = tracker.samples();
        assert_eq!(samples.len(), 5);
        assert_eq!((silence(&tracker), samples[4].lost), (25, 7));
        // Of more replies than are tracked, the newest counts once all are acknowledged.
        tracker.sample(45 * SECOND, 89, 7, None, PERIOD);
        assert_eq!(silence(&tracker), 4, "45 s minus 40 s, when the last reply passed");
    }

    #[test]
    fn only_the_last_samples_are_kept_oldest_first() {
        let samples = healthy(40).samples();
        assert_eq!(samples.len(), SAMPLES as usize);
        assert!(
            samples.windows(2).all(|pair| pair[0].at < pair[1].at)
                && samples[SAMPLES as usize - 1].at == 195 * SECOND
        );
    }
}
