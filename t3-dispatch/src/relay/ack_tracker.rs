//! Whether serve's answers reach the browser's side, told by what its kernel acknowledges. Pure: it
//! is told what a look at the socket gave.
//!
//! The arrival of pings says little on a bad path: they come late and in heaps. How long ago the
//! last answer passed that is known to have been taken says what the browser's watchdog saw, but
//! for one way through the network.

use t3_record::evidence::{Nanos, SocketSample};

/// Answers on their way whose place is remembered; of more, the last ones stand for each other.
const FLIGHT: usize = 8;
/// Looks that are kept.
const LOOKS: usize = 16;

/// An answer in the stream towards the browser.
#[derive(Debug, Clone, Copy, Default)]
struct Answer {
    /// Offset in that stream at which it has passed.
    end: u64,
    at: Nanos,
    /// How long serve took.
    took: u64,
}

/// The answers of one session on their way.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    flight: [Answer; FLIGHT],
    flying: usize,
    /// When the newest acknowledged answer passed; at first, when the first ping came.
    heard_at: Option<Nanos>,
    /// The kernel's count of lost segments at the last look.
    lost: Option<u32>,
    looks: [SocketSample; LOOKS],
    looked: usize,
}

impl Delivery {
    /// The first ping came: from now on the browser waits for answers.
    pub fn begin(&mut self, now: Nanos) {
        self.heard_at.get_or_insert(now);
    }

    /// An answer passed, for which serve `took` so long, in nanoseconds; the stream towards the
    /// browser reaches up to `end` with it.
    pub fn answered(&mut self, end: u64, now: Nanos, took: u64) {
        let slot = self.flying.min(FLIGHT - 1);
        self.flight[slot] = Answer { end, at: now, took };
        self.flying = slot + 1;
    }

    /// A look at the browser's socket: how much of the stream it has `acknowledged` and how many
    /// segments were `lost` so far. A ping that serve still owes an answer came at `waiting_since`.
    /// `true`: nothing was lost since the look before.
    pub fn look(
        &mut self,
        now: Nanos,
        acknowledged: u64,
        lost: u32,
        waiting_since: Option<Nanos>,
        period: Option<Nanos>,
    ) -> bool {
        let heard = self.flight[..self.flying].iter().take_while(|answer| answer.end <= acknowledged).count();
        if heard > 0 {
            self.heard_at = Some(self.flight[heard - 1].at);
            self.flight.rotate_left(heard);
            self.flying -= heard;
        }
        // What serve took is not the path's.
        let (until, took) = match self.flight.first().filter(|_| self.flying > 0) {
            Some(answer) => (now, answer.took),
            None => (waiting_since.unwrap_or(now).min(now), 0),
        };
        let silence = self.heard_at.map_or(0, |heard| until.saturating_sub(heard).saturating_sub(took));
        let fresh = self.lost.map_or(0, |before| lost.saturating_sub(before));
        self.lost = Some(lost);
        self.keep(SocketSample { at: now, silence_ns: silence, lost: fresh }, period);
        fresh == 0
    }

    fn keep(&mut self, look: SocketSample, period: Option<Nanos>) {
        // Pings that come in a heap are one look, or they would push out what was before them.
        if let Some(last) = self.looked.checked_sub(1) {
            let last = &mut self.looks[last % LOOKS];
            if look.at.saturating_sub(last.at) < period.unwrap_or(0) / 2 {
                last.silence_ns = last.silence_ns.max(look.silence_ns);
                last.lost = last.lost.saturating_add(look.lost);
                return;
            }
        }
        self.looks[self.looked % LOOKS] = look;
        self.looked += 1;
    }

    /// The last looks, oldest first.
    #[must_use]
    pub fn looks(&self) -> Vec<SocketSample> {
        let first = self.looked.saturating_sub(LOOKS);
        (first..self.looked).map(|n| self.looks[n % LOOKS]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const PERIOD: Option<Nanos> = Some(5 * SECOND);

    fn silence(delivery: &Delivery) -> u64 {
        delivery.looks().last().unwrap().silence_ns / SECOND
    }

    /// A ping every period, each answered at once with ten bytes, and acknowledged before the next.
    fn healthy(beats: u64) -> Delivery {
        let mut delivery = Delivery::default();
        delivery.begin(0);
        for n in 0..beats {
            delivery.look(n * 5 * SECOND, n * 10, 0, Some(n * 5 * SECOND), PERIOD);
            delivery.answered((n + 1) * 10, n * 5 * SECOND, 0);
        }
        delivery
    }

    #[test]
    fn an_acknowledged_answer_ends_the_silence_and_a_ping_that_is_due_makes_none() {
        let delivery = healthy(4);
        assert!(delivery.looks().iter().all(|look| look.silence_ns <= 5 * SECOND && look.lost == 0));
        assert_eq!(silence(&delivery), 5);
    }

    #[test]
    fn what_is_not_acknowledged_was_not_heard() {
        let mut delivery = healthy(4);
        delivery.look(20 * SECOND, 30, 2, Some(20 * SECOND), PERIOD);
        assert_eq!(silence(&delivery), 10);
        delivery.answered(50, 20 * SECOND, 0);
        delivery.look(25 * SECOND, 49, 5, None, PERIOD);
        assert_eq!((silence(&delivery), delivery.looks().last().unwrap().lost), (10, 3));
    }

    #[test]
    fn pings_that_do_not_come_are_a_silence_too() {
        let mut delivery = healthy(4);
        delivery.look(33 * SECOND, 40, 0, Some(33 * SECOND), PERIOD);
        assert_eq!(silence(&delivery), 18);
    }

    #[test]
    fn what_serve_took_is_not_the_paths() {
        let mut delivery = healthy(4);
        // It owes an answer since the ping at 20 s: from then on the browser waits for serve.
        delivery.look(40 * SECOND, 40, 0, Some(20 * SECOND), PERIOD);
        assert_eq!(silence(&delivery), 5);
        delivery.answered(50, 40 * SECOND, 20 * SECOND);
        delivery.look(45 * SECOND, 40, 0, None, PERIOD);
        assert_eq!(silence(&delivery), 10);
    }

    #[test]
    fn a_heap_of_pings_is_one_look_that_keeps_the_worst() {
        let mut delivery = healthy(4);
        for n in 0..40 {
            delivery.look(40 * SECOND + n, 40, 7, None, PERIOD);
            delivery.answered(50 + n, 40 * SECOND + n, 0);
        }
        let looks = delivery.looks();
        assert_eq!(looks.len(), 5);
        assert_eq!((silence(&delivery), looks[4].lost), (25, 7));
        // Far more answers on their way than are remembered: the newest of them counts when all
        // have got through.
        delivery.look(45 * SECOND, 89, 7, None, PERIOD);
        assert_eq!(silence(&delivery), 4, "45 s less the 40 s at which the last passed");
    }

    #[test]
    fn only_the_last_looks_are_kept_oldest_first() {
        let looks = healthy(40).looks();
        assert_eq!(looks.len(), LOOKS);
        assert!(looks.windows(2).all(|pair| pair[0].at < pair[1].at) && looks[LOOKS - 1].at == 195 * SECOND);
    }
}
