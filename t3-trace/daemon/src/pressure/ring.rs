//! Counters of the last minute and the pressure derived from them. Pure.
//!
//! Every value is the difference of two totals over the time between them, so a delayed sampler
//! loses resolution but not accuracy. Missing measurements are `None`.

use std::collections::VecDeque;

use t3_record::evidence::{Nanos, Pressure, Stall};
use t3_trace_host::clock::SECOND;

use super::psi::Totals;

/// Time for which samples are kept.
pub const KEEP: Nanos = 60 * SECOND;
/// Window of `some` and `full`.
pub const WINDOW: Nanos = 10 * SECOND;
/// Window of `some30` and `peak`.
pub const LONG_WINDOW: Nanos = 30 * SECOND;
/// Minimum length of an interval that counts as a second: the sampler may wake early or late.
const ABOUT_A_SECOND: Nanos = SECOND * 9 / 10;
/// Minimum length of an interval for a percentage.
const SHORTEST: Nanos = SECOND / 2;

/// Counters of a host or cgroup at one time; `None` if the kernel lacks one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Memory stalls.
    pub mem: Option<Totals>,
    /// IO stalls.
    pub io: Option<Totals>,
    /// CPU stalls.
    pub cpu: Option<Totals>,
    /// `oom_kill` of `memory.events`.
    pub oom_kills: Option<u64>,
    /// `high` of `memory.events`.
    pub high: Option<u64>,
}

impl Counters {
    /// Whether nothing could be read: no such cgroup, or a kernel without PSI.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a counter decreased: the cgroup was removed and created again with the same name.
    fn is_behind(&self, earlier: &Self) -> bool {
        let back = |now: Option<u64>, then: Option<u64>| now.zip(then).is_some_and(|(now, then)| now < then);
        let stall_back = |now: Option<Totals>, then: Option<Totals>| {
            now.zip(then).is_some_and(|(now, then)| now.some < then.some || back(now.full, then.full))
        };
        stall_back(self.mem, earlier.mem)
            || stall_back(self.io, earlier.io)
            || stall_back(self.cpu, earlier.cpu)
            || back(self.oom_kills, earlier.oom_kills)
            || back(self.high, earlier.high)
    }
}

/// Counters with their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub at: Nanos,
    pub counters: Counters,
}

/// Samples of the last minute, oldest first, times strictly increasing.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    samples: VecDeque<Sample>,
}

impl Ring {
    /// Adds a sample. One that is not newer than the last is ignored; decreased counters clear the
    /// ring.
    pub fn push(&mut self, sample: Sample) {
        if let Some(last) = self.samples.back() {
            if sample.at <= last.at {
                return;
            }
            if sample.counters.is_behind(&last.counters) {
                self.samples.clear();
            }
        }
        self.samples.push_back(sample);
        // One sample before the window stays as the base of differences over the full minute.
        while self.samples.get(1).is_some_and(|second| second.at + KEEP <= sample.at) {
            self.samples.pop_front();
        }
    }

    /// The newest sample.
    #[must_use]
    pub fn last(&self) -> Option<Sample> {
        self.samples.back().copied()
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Pressure over the windows that end at the newest sample; `None` without data for any
    /// resource.
    #[must_use]
    pub fn pressure(&self) -> Option<Pressure> {
        let pressure =
            Pressure { mem: self.stall(|c| c.mem), io: self.stall(|c| c.io), cpu: self.stall(|c| c.cpu) };
        (pressure != Pressure::default()).then_some(pressure)
    }

    /// Growth of a counter in the last 60 s, or since the first sample if that is younger.
    #[must_use]
    pub fn growth(&self, pick: impl Fn(&Counters) -> Option<u64>) -> Option<u64> {
        let last = pick(&self.last()?.counters)?;
        let first = self.samples.iter().find_map(|sample| pick(&sample.counters))?;
        Some(last.saturating_sub(first))
    }

    /// Highest pressure of the three resources for each of the last `count` seconds, in percent,
    /// oldest first. A delayed sample makes one longer interval.
    #[must_use]
    pub fn seconds(&self, count: usize) -> Vec<f32> {
        let mut intervals = Vec::new();
        let mut newer: Option<&Sample> = None;
        for sample in self.samples.iter().rev() {
            let Some(end) = newer else {
                newer = Some(sample);
                continue;
            };
            if end.at - sample.at < ABOUT_A_SECOND {
                continue;
            }
            if intervals.len() == count {
                break;
            }
            intervals.extend(worst(sample, end));
            newer = Some(sample);
        }
        intervals.reverse();
        intervals
    }

    fn stall(&self, pick: impl Fn(&Counters) -> Option<Totals>) -> Option<Stall> {
        let series: Vec<(Nanos, Totals)> =
            self.samples.iter().filter_map(|s| Some((s.at, pick(&s.counters)?))).collect();
        let &(end, last) = series.last()?;
        let base =
            |window| nearest(&series, end.saturating_sub(window)).filter(|(at, _)| end - at >= SHORTEST);
        let (short_at, short) = base(WINDOW)?;
        let (long_at, long) = base(LONG_WINDOW)?;
        Some(Stall {
            some: percent(last.some.saturating_sub(short.some), end - short_at),
            full: last
                .full
                .zip(short.full)
                .map(|(last, first)| percent(last.saturating_sub(first), end - short_at)),
            peak: peak(&series, end),
            some30: percent(last.some.saturating_sub(long.some), end - long_at),
        })
    }
}

/// Highest pressure of any resource between two samples; `None` if none was measured.
fn worst(from: &Sample, to: &Sample) -> Option<f32> {
    let stalled = |pick: fn(&Counters) -> Option<Totals>| {
        let (from, to) = (pick(&from.counters)?, pick(&to.counters)?);
        Some(to.some.saturating_sub(from.some))
    };
    let worst = [stalled(|c| c.mem), stalled(|c| c.io), stalled(|c| c.cpu)].into_iter().flatten().max()?;
    Some(percent(worst, to.at - from.at))
}

/// The sample nearest to a given time, the older of two equally near.
fn nearest(series: &[(Nanos, Totals)], moment: Nanos) -> Option<(Nanos, Totals)> {
    series.iter().copied().min_by_key(|(at, _)| (at.abs_diff(moment), *at))
}

/// Highest pressure of an interval of about one second (longer if a sample was delayed) in the long
/// window. Intervals overlap, so that a stall is found wherever it is between two samples.
fn peak(series: &[(Nanos, Totals)], end: Nanos) -> f32 {
    let within = &series[series.partition_point(|(at, _)| at + LONG_WINDOW < end)..];
    let intervals = within.iter().enumerate().filter_map(|(i, &(from, first))| {
        let &(to, last) = within[i..].iter().find(|(at, _)| at - from >= ABOUT_A_SECOND)?;
        Some(percent(last.some.saturating_sub(first.some), to - from))
    });
    let total = within.first().zip(within.last()).filter(|(first, last)| last.0 > first.0);
    let total =
        total.map(|(first, last)| percent(last.1.some.saturating_sub(first.1.some), last.0 - first.0));
    intervals.chain(total).fold(0.0, f32::max)
}

/// Share of stalled microseconds in elapsed nanoseconds. The kernel reads its clocks slightly after
/// this process, hence the cap.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a percentage needs no more than f32"
)]
fn percent(stalled_us: u64, elapsed: Nanos) -> f32 {
    let share = stalled_us as f64 * 1e5 / elapsed.max(1) as f64;
    share.clamp(0.0, 100.0) as f32
}

#[cfg(test)]
mod tests;
