//! Recorded and generated time series of frames. A series has the payload size, the sender and the
//! time of each frame.

use super::*;

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MS;

/// Deterministic random numbers (xorshift), so that a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Client,
    Serve,
}
use Peer::{Client, Serve};

/// (time, sender, payload size)
type Series = Vec<(Nanos, Peer, u64)>;

/// Heartbeats of `sender` in a series, sorted by time first.
fn beats(mut series: Series, sender: Peer, is_compressed: bool) -> (Vec<Beat>, Option<Nanos>) {
    series.sort_by_key(|(at, ..)| *at);
    let mut rhythm = Rhythm::new(is_compressed);
    let mut found = Vec::new();
    for (at, from, size) in series {
        if from == sender {
            rhythm.own(size, at, |beat| found.push(beat));
        } else {
            rhythm.other(at);
        }
    }
    (found, rhythm.period())
}

/// A ping every `period`, late by up to `jitter`, answered after `rtt`.
fn pings(count: u64, period: Nanos, jitter: Nanos, sizes: &[u64], rtt: Option<Nanos>) -> Series {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut series = Series::new();
    for n in 0..count {
        let at = SECOND + n * period + random.below(jitter.max(1));
        let size = sizes[usize::try_from(n).unwrap().min(sizes.len() - 1)];
        series.push((at, Client, size));
        series.extend(rtt.map(|rtt| (at + rtt, Serve, size)));
    }
    series
}

#[track_caller]
fn has_period(found: &(Vec<Beat>, Option<Nanos>), count: usize, period: Nanos) {
    let learned = found.1.expect("a period");
    assert!(learned.abs_diff(period) <= period / 20, "{learned} is not {period}");
    assert_eq!(found.0.len(), count, "{found:?}");
    assert!(found.0.is_sorted_by_key(|beat| beat.at));
}

#[test]
fn t3_is_recognised_plain_and_compressed() {
    for (sizes, is_compressed) in [(&[15][..], false), (&[17, 5, 4, 4, 5, 10, 4, 4, 17, 4], true)] {
        let series = pings(12, 5 * SECOND, 6 * MS, sizes, Some(2 * MS));
        let found = beats(series, Client, is_compressed);
        has_period(&found, 12, 5 * SECOND);
        // The answers to the pings that taught the period are known as well.
        assert!(found.0[..3].iter().all(|beat| beat.answer == Some(beat.at + 2 * MS)));
    }
}

#[test]
fn three_intervals_teach_the_period_and_two_do_not() {
    for (count, found) in [(2, 0), (3, 0), (4, 4), (5, 5)] {
        assert_eq!(beats(pings(count, 5 * SECOND, 6 * MS, &[4], Some(MS)), Client, true).0.len(), found);
    }
}

#[test]
fn a_period_that_a_user_can_keep_needs_four_intervals_and_no_other_message() {
    let quick = |count| pings(count, 1_500 * MS, 6 * MS, &[4], Some(MS));
    for (count, found) in [(4, 0), (5, 5), (6, 6)] {
        assert_eq!(beats(quick(count), Client, true).0.len(), found, "{count} pings");
    }
    let mut series = quick(5);
    series.push((1_700 * MS + 3 * SECOND, Client, 4));
    assert_eq!(beats(series, Client, true), (Vec::new(), None));
    // Shorter than any heartbeat.
    assert_eq!(beats(pings(20, 900 * MS, MS, &[4], Some(MS)), Client, true), (Vec::new(), None));
}

#[test]
fn heartbeats_of_other_applications_are_recognised() {
    // SignalR: 11 bytes every 15 s, not answered; serve's own every 15 s, between them.
    let mut series = pings(10, 15 * SECOND, 40 * MS, &[11], None);
    series.extend((0..10).map(|n| (8 * SECOND + n * 15 * SECOND, Serve, 11)));
    has_period(&beats(series.clone(), Client, false), 10, 15 * SECOND);
    has_period(&beats(series, Serve, false), 10, 15 * SECOND);
    // Home Assistant: every 30 s, with a counter that gains a digit.
    let sizes: Vec<u64> = (0..20).map(|n| if n < 8 { 23 } else { 24 }).collect();
    has_period(&beats(pings(20, 30 * SECOND, 80 * MS, &sizes, Some(5 * MS)), Client, false), 20, 30 * SECOND);
    // socket.io: serve pings every 25 s, the client answers.
    let series: Series = pings(10, 25 * SECOND, 10 * MS, &[1], Some(60 * MS))
        .into_iter()
        .map(|(at, from, size)| (at, if from == Client { Serve } else { Client }, size))
        .collect();
    has_period(&beats(series.clone(), Serve, false), 10, 25 * SECOND);
    assert_eq!(beats(series, Client, false).0, []);
    // Phoenix: 37 bytes every 30 s.
    has_period(&beats(pings(6, 30 * SECOND, 20 * MS, &[37], Some(MS)), Client, false), 6, 30 * SECOND);
}

#[test]
fn pings_are_found_between_other_traffic() {
    // Bursts of chunks with their acknowledgements, which have the size of a ping.
    let mut series = pings(60, 5 * SECOND, 6 * MS, &[4], Some(2 * MS));
    for burst in 0..9_u64 {
        for n in 0..40_u64 {
            let at = 22 * SECOND + burst * 31 * SECOND + n * 50 * MS;
            series.push((at, Serve, 900));
            series.push((at + 30 * MS, Client, 4));
        }
    }
    let found = beats(series, Client, true);
    let period = found.1.expect("a period");
    assert!(period.abs_diff(5 * SECOND) < SECOND / 4, "{period}");
    assert!((55..=62).contains(&found.0.len()), "{}", found.0.len());
}

#[test]
fn a_stream_alone_has_no_heartbeat() {
    // An acknowledgement for each chunk, in a perfect period.
    let mut series = Series::new();
    for n in 0..200 {
        series.push((SECOND + n * 2 * SECOND, Serve, 700));
        series.push((SECOND + n * 2 * SECOND + 40 * MS, Client, 4));
    }
    assert_eq!(beats(series, Client, true), (Vec::new(), None));
    // The parts of an upload are too large, keys repeat too fast.
    let upload = (0..500).map(|n| (n * 100 * MS, Client, 16_000)).collect();
    assert_eq!(beats(upload, Client, false), (Vec::new(), None));
    let keys = (0..500).map(|n| (SECOND + n * 33 * MS, Client, 1)).collect();
    assert_eq!(beats(keys, Client, false), (Vec::new(), None));
    assert_eq!(beats(Series::new(), Client, false), (Vec::new(), None));
}

/// A user who types: bursts of short messages with pauses, sizes that differ a little.
fn typing(seed: u64, is_small: bool) -> Series {
    let mut random = Random(seed | 1);
    let mut at = SECOND;
    let mut series = Series::new();
    for _ in 0..600 {
        // Most intervals are those of words, some of thinking.
        at += match random.below(10) {
            0 => 3 * SECOND + random.below(20 * SECOND),
            1..=3 => 800 * MS + random.below(3 * SECOND),
            _ => 90 * MS + random.below(900 * MS),
        };
        series.push((at, Client, if is_small { 4 + random.below(8) } else { 73 + random.below(40) }));
        if random.below(3) == 0 {
            series.push((at + 20 * MS + random.below(600 * MS), Serve, 200));
        }
    }
    series
}

#[test]
fn a_user_who_types_has_no_heartbeat() {
    // Messages of the size of RPC requests are never counted. Of 2,000 users who send 600 messages
    // of the size of a ping each, chance gives few a period; a verdict that rests on a period is
    // therefore never proven by few heartbeats.
    let mut wrong = 0;
    for seed in 1..=2_000 {
        let seed = seed * 0x1234_5678_9abc;
        assert_eq!(beats(typing(seed, false), Client, false), (Vec::new(), None), "seed {seed}");
        wrong += u32::from(!beats(typing(seed, true), Client, true).0.is_empty());
    }
    assert!(wrong <= 5, "{wrong} of 2,000");
}

/// Whether the series has a heartbeat, and whether that is regular.
fn is_regular(mut series: Series, is_compressed: bool) -> Option<bool> {
    series.sort_by_key(|(at, ..)| *at);
    let mut rhythm = Rhythm::new(is_compressed);
    for (at, from, size) in series {
        match from {
            Client => rhythm.own(size, at, |_| ()),
            Serve => rhythm.other(at),
        }
    }
    rhythm.period().map(|_| rhythm.is_regular())
}

#[test]
fn a_timer_is_regular_and_a_user_with_a_period_by_chance_is_not() {
    assert_eq!(is_regular(pings(4, 5 * SECOND, 6 * MS, &[4], Some(MS)), true), Some(true));
    assert_eq!(is_regular(pings(60, 5 * SECOND, 6 * MS, &[4], Some(MS)), true), Some(true));
    // A few other messages of that size.
    let mut series = pings(12, 5 * SECOND, 6 * MS, &[4], Some(MS));
    series.extend((0..6).map(|n| (23 * SECOND + n * 5 * SECOND, Client, 6)));
    assert_eq!(is_regular(series.clone(), true), Some(true));
    series.push((24 * SECOND, Client, 6));
    assert_eq!(is_regular(series, true), Some(false));
    // Each third message of a user has the period of a timer.
    let size = |n: u64| if n.is_multiple_of(3) { 5 } else { 40 };
    let user = (0..60).map(|n| (SECOND + n * 2_000 * MS + (n % 3) * 90 * MS, Client, size(n))).collect();
    assert_eq!(is_regular(user, false), Some(false));
    // A user whose messages are slower than the period that chance gave.
    let mut slow = pings(4, 2_500 * MS, 0, &[4], None);
    slow.extend([12_000, 15_400, 20_300, 23_200, 29_300, 32_900].map(|at| (at * MS, Client, 4)));
    assert_eq!(is_regular(slow, true), Some(false));
    let regular = (1..=4_000).filter(|seed| is_regular(typing(seed * 0x9e37_79b9, true), true) == Some(true));
    assert_eq!(regular.count(), 0);
}

#[test]
fn a_user_who_types_does_not_hide_the_heartbeat() {
    let mut series = pings(200, 5 * SECOND, 6 * MS, &[4], Some(MS));
    series.extend(typing(7, false));
    let found = beats(series, Client, true);
    assert!(found.1.is_some_and(|period| period.abs_diff(5 * SECOND) < SECOND / 4), "{:?}", found.1);
    assert!((190..=202).contains(&found.0.len()), "{}", found.0.len());
}

#[test]
fn a_stall_does_not_end_the_recognition() {
    // serve is silent for 15 s and answers at the end; the client pings on.
    let mut series = pings(8, 5 * SECOND, 6 * MS, &[4], Some(MS));
    series.retain(|(at, from, _)| *from == Client || *at < 21 * SECOND);
    has_period(&beats(series, Client, true), 8, 5 * SECOND);
}

#[test]
fn queued_pings_are_all_counted() {
    let mut series = pings(6, 5 * SECOND, 6 * MS, &[15], Some(MS));
    let last = 1_000 * MS + 25 * SECOND;
    for n in 0..3 {
        series.push((last + 17 * SECOND + n * 10_000, Client, 15));
    }
    assert_eq!(beats(series, Client, false).0.len(), 9);
}

#[test]
fn a_tab_in_the_background_keeps_its_heartbeat() {
    let mut series = pings(8, 5 * SECOND, 6 * MS, &[4], Some(MS));
    let mut at = 36 * SECOND;
    for wait in [6, 7, 6, 7, 7, 6, 120, 120, 120, 120] {
        at += wait * SECOND;
        series.push((at, Client, 4));
        series.push((at + MS, Serve, 4));
    }
    let found = beats(series, Client, true);
    assert_eq!(found.0.len(), 18);
    assert!(found.1.is_some_and(|period| period.abs_diff(120 * SECOND) < 6 * SECOND), "{:?}", found.1);
}

#[test]
fn a_recogniser_is_small() {
    // One per sender and session.
    assert!(size_of::<Rhythm>() <= 256, "{}", size_of::<Rhythm>());
}
