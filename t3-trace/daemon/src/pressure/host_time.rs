//! Time that this host did not have: delays of the sampler itself, and CPU time that the hypervisor
//! gave to others. Pure.

use std::collections::VecDeque;

use t3_record::evidence::{MAX_SPANS, Nanos, Span};
use t3_trace_host::clock::SECOND;

/// Shorter delays are those of a busy host.
const MIN_DELAY: Nanos = SECOND / 10;
/// A sample reads some files. One that takes longer than this was interrupted, or the host is under
/// pressure, which the samples show.
const LONG_SAMPLE: Nanos = SECOND;
/// Samples of CPU time, about one per second.
const SAMPLES: usize = 31;

/// CPU time of all CPUs since boot, in clock ticks (`/proc/stat`, proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTime {
    steal: u64,
    total: u64,
}

impl CpuTime {
    /// Parses the first line of `/proc/stat`.
    #[must_use]
    pub fn parse(stat: &str) -> Option<Self> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
        // User, nice, system, idle, iowait, irq, softirq, steal; what follows is part of user.
        let fields: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { steal: *fields.get(7)?, total: fields.iter().fold(0, |sum, n| sum.saturating_add(*n)) })
    }

    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
    fn steal_since(self, before: Self) -> f32 {
        let steal = self.steal.saturating_sub(before.steal);
        let total = self.total.saturating_sub(before.total).max(1);
        (steal as f32 * 100.0 / total as f32).min(100.0)
    }
}

/// Delays and stolen time of the last samples.
#[derive(Debug, Clone, Default)]
pub struct HostTime {
    /// Time of the next sample, while the sampler sleeps.
    due: Option<Nanos>,
    /// Begin of the sample that is being taken.
    began: Option<Nanos>,
    delays: VecDeque<Span>,
    cpu: VecDeque<CpuTime>,
}

impl HostTime {
    /// The sampler sleeps until `due`.
    pub fn sleeps(&mut self, now: Nanos, due: Nanos) {
        self.keep(now);
        (self.began, self.due) = (None, Some(due));
    }

    /// The sampler runs.
    pub fn runs(&mut self, now: Nanos, cpu: Option<CpuTime>) {
        self.keep(now);
        (self.began, self.due) = (Some(now), None);
        if let Some(cpu) = cpu {
            if self.cpu.len() == SAMPLES {
                self.cpu.pop_front();
            }
            self.cpu.push_back(cpu);
        }
    }

    fn keep(&mut self, now: Nanos) {
        if let Some(delay) = self.delay(now) {
            if self.delays.len() == MAX_SPANS {
                self.delays.pop_front();
            }
            self.delays.push_back(delay);
        }
    }

    /// The delay that lasts: of a sleep, or of a sample.
    fn delay(&self, now: Nanos) -> Option<Span> {
        let sleep = self.due.map(|due| (due, MIN_DELAY));
        let (from, least) = sleep.or(self.began.map(|began| (began, LONG_SAMPLE)))?;
        (now.saturating_sub(from) >= least).then_some(Span { from, until: now })
    }

    /// The last delays, oldest first, with the one that lasts: others may run before the sampler.
    #[must_use]
    pub fn delays(&self, now: Nanos) -> Vec<Span> {
        self.delays.iter().copied().chain(self.delay(now)).collect()
    }

    /// Worst second of the last 30 s, in percent of all CPUs.
    #[must_use]
    pub fn steal(&self) -> Option<f32> {
        let pairs = self.cpu.iter().zip(self.cpu.iter().skip(1));
        pairs.map(|(before, after)| after.steal_since(*before)).reduce(f32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: Nanos, until: Nanos) -> Span {
        Span { from: from * SECOND / 10, until: until * SECOND / 10 }
    }

    #[test]
    fn a_delay_is_known_before_the_sampler_runs_again() {
        let mut time = HostTime::default();
        time.runs(SECOND, None);
        time.sleeps(SECOND, 2 * SECOND);
        assert_eq!(time.delays(2 * SECOND + 1), []);
        assert_eq!(time.delays(9 * SECOND), [span(20, 90)]);
        time.runs(9 * SECOND, None);
        assert_eq!(time.delays(9 * SECOND + 1), [span(20, 90)], "it runs");
        time.sleeps(9 * SECOND + 1, 10 * SECOND);
        time.runs(10 * SECOND + SECOND / 20, None);
        assert_eq!(time.delays(10 * SECOND + SECOND / 20), [span(20, 90)]);
    }

    #[test]
    fn a_host_that_is_paused_during_a_sample_is_late_as_well() {
        let mut time = HostTime::default();
        time.runs(SECOND, None);
        assert_eq!(time.delays(2 * SECOND - 1), [], "a slow sample");
        assert_eq!(time.delays(9 * SECOND), [span(10, 90)]);
        time.sleeps(9 * SECOND, 10 * SECOND);
        assert_eq!(time.delays(10 * SECOND), [span(10, 90)], "kept");
        time.runs(10 * SECOND, None);
        time.sleeps(11 * SECOND - 1, 12 * SECOND);
        assert_eq!(time.delays(12 * SECOND), [span(10, 90)], "a slow sample");
    }

    #[test]
    fn steal_is_a_share_of_all_cpu_time() {
        let cpu =
            |idle: u64, steal: u64| CpuTime::parse(&format!("cpu  10 0 5 {idle} 0 0 1 {steal} 0 0\ncpu0 1"));
        let mut time = HostTime::default();
        assert_eq!(time.steal(), None);
        for (idle, steal) in [(100, 0), (200, 0), (240, 60), (340, 60)] {
            time.runs(SECOND, cpu(idle, steal));
        }
        assert_eq!(time.steal(), Some(60.0));
        for _ in 0..SAMPLES {
            time.runs(SECOND, cpu(400, 60));
        }
        assert_eq!(time.steal(), Some(0.0));
        for text in ["", "cpu 1 2 3", "cpu a b c d e f g h", "intr 1"] {
            assert_eq!(CpuTime::parse(text), None, "{text}");
        }
    }
}
