//! Time that this host did not have: delays of the sampler itself, and CPU time that the hypervisor
//! gave to others. Pure.

use std::collections::VecDeque;

use t3_record::evidence::{MAX_SPANS, Nanos, Span};
use t3_trace_host::clock::SECOND;

/// Shorter delays are those of a busy host.
const MIN_DELAY: Nanos = SECOND / 10;
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
    /// Time of the next sample.
    due: Option<Nanos>,
    delays: VecDeque<Span>,
    cpu: VecDeque<CpuTime>,
}

impl HostTime {
    /// The sampler sleeps until `due`.
    pub fn sleeps(&mut self, due: Nanos) {
        self.due = Some(due);
    }

    /// The sampler runs.
    pub fn runs(&mut self, now: Nanos, cpu: Option<CpuTime>) {
        if let Some(delay) = self.delay(now) {
            if self.delays.len() == MAX_SPANS {
                self.delays.pop_front();
            }
            self.delays.push_back(delay);
        }
        self.due = None;
        if let Some(cpu) = cpu {
            if self.cpu.len() == SAMPLES {
                self.cpu.pop_front();
            }
            self.cpu.push_back(cpu);
        }
    }

    fn delay(&self, now: Nanos) -> Option<Span> {
        let due = self.due?;
        (now.saturating_sub(due) >= MIN_DELAY).then_some(Span { from: due, until: now })
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
        time.sleeps(2 * SECOND);
        assert_eq!(time.delays(2 * SECOND + 1), []);
        assert_eq!(time.delays(9 * SECOND), [span(20, 90)]);
        time.runs(9 * SECOND, None);
        assert_eq!(time.delays(99 * SECOND), [span(20, 90)], "it runs");
        time.sleeps(10 * SECOND);
        time.runs(10 * SECOND + SECOND / 20, None);
        assert_eq!(time.delays(10 * SECOND + SECOND / 20), [span(20, 90)]);
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
