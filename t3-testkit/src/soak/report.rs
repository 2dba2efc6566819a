//! Report of a soak and its limits. Pure, except for printing.

use serde::Serialize;

use super::limits::Limits;
use crate::chaos::{
    audit::{Audit, Times},
    process_usage::Held,
};

/// Maximum growth of memory in percent, or [`FLAT_KIB`] if that is more.
const FLAT_PERCENT: u64 = 2;
/// Size of an allocator's arena.
const FLAT_KIB: u64 = 2 << 10;
/// Sessions per tolerated lost kernel event. The kernel skips and counts a program that would
/// interrupt itself on its CPU; the records must still be right. A full ring or map loses hundreds.
const FOR_ONE_LOST: u64 = 1_000;
/// Memory that the process may keep after its sessions.
const RETURNED_KIB: u64 = 2 << 10;
/// Tolerated difference of descriptors.
const SPARE: usize = 8;

/// A sample of memory.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// Seconds since the first heartbeats of all sessions.
    pub seconds: f64,
    /// Resident memory of t3-dispatch, in KiB.
    pub dispatch_kib: u64,
    /// Resident memory of t3-trace, in KiB.
    pub trace_kib: u64,
}

/// CPU time while the sessions were held, in percent of one core.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Cpu {
    pub dispatch: f64,
    pub trace: f64,
    /// The clients, in this process.
    pub browsers: f64,
    pub serves: f64,
}

/// Result of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Seed of the plans.
    pub seed: u64,
    pub sessions: u32,
    /// Time for opening all sessions.
    pub opening_seconds: f64,
    pub held_seconds: f64,
    /// From the first end to the last.
    pub ending_seconds: f64,
    pub unopened: u32,
    /// Sessions that ended too early.
    pub dropped: u32,
    /// Open sessions in t3-trace at the end of the hold.
    pub registered: u64,
    /// Heartbeat RTT.
    pub heartbeats: Times,
    /// dispatch before the first session, with all, and after the last.
    pub dispatch: [Held; 3],
    /// Seconds between the last session and the last measurement; 0: memory may stay.
    pub settle_seconds: u64,
    /// Memory while sessions were held; growth is relative to the first sample.
    pub samples: Vec<Sample>,
    pub cpu: Cpu,
    /// Records with verdict `unknown`.
    pub unknown: usize,
    /// Lost kernel events according to the records.
    pub lost: u64,
    /// Lost kernel events according to t3-trace.
    pub lost_in_all: u64,
    /// Insertions into full maps.
    pub map_full: u64,
    pub audit: Audit,
    /// Memory of t3-dispatch per connection; `None` before the measurement.
    pub limits: Option<Limits>,
}

impl Report {
    /// Growth of memory above the first sample in KiB: t3-dispatch, t3-trace.
    #[must_use]
    pub fn growth_kib(&self) -> (u64, u64) {
        let over = |of: fn(&Sample) -> u64| {
            let first = self.samples.first().map_or(0, of);
            self.samples.iter().map(of).max().unwrap_or(0).saturating_sub(first)
        };
        (over(|sample| sample.dispatch_kib), over(|sample| sample.trace_kib))
    }

    /// Findings other than mismatches of single records.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut none = |count: u64, what: &str| {
            if count > 0 {
                wrong.push(format!("{count} {what}"));
            }
        };
        none(self.unopened.into(), "sessions did not open");
        none(self.dropped.into(), "sessions were dropped");
        none(u64::from(self.sessions).abs_diff(self.registered), "sessions too many or too few in t3-trace");
        none(self.unknown as u64, "records with verdict unknown");
        none(self.map_full, "insertions into full maps failed");
        if self.lost_in_all > u64::from(self.sessions) / FOR_ONE_LOST {
            wrong.push(format!("{} kernel events were lost", self.lost_in_all));
        }
        if self.lost > self.lost_in_all {
            wrong.push(format!("lost events: {} in records, {} in t3-trace", self.lost, self.lost_in_all));
        }
        let sessions = self.sessions as usize;
        if (self.audit.opens, self.audit.closes) != (sessions, sessions) {
            wrong.push(format!(
                "{} `ws open` and {} `ws close` for {sessions} sessions",
                self.audit.opens, self.audit.closes
            ));
        }
        let first = self.samples.first();
        let growth = self.growth_kib();
        for (program, grown, first) in [
            ("t3-dispatch", growth.0, first.map(|sample| sample.dispatch_kib)),
            ("t3-trace", growth.1, first.map(|sample| sample.trace_kib)),
        ] {
            let first = first.unwrap_or(0);
            if first == 0 || grown > (first * FLAT_PERCENT / 100).max(FLAT_KIB) {
                wrong.push(format!(
                    "{program} had {first} KiB with all sessions open, and later {grown} KiB more"
                ));
            }
        }
        let [before, with, after] = self.dispatch.map(|held| held.descriptors);
        if with < 2 * sessions || after > before + SPARE {
            wrong.push(format!(
                "t3-dispatch had {before} descriptors, with all open {with}, after all {after}"
            ));
        }
        let [before, _, after] = self.dispatch.map(|held| held.anonymous_kib);
        if self.settle_seconds > 0 && after > before + RETURNED_KIB {
            wrong.push(format!(
                "t3-dispatch had {before} KiB of anonymous memory, {} s after the last session {after}",
                self.settle_seconds
            ));
        }
        wrong.extend(self.limits.iter().flat_map(Limits::findings));
        wrong
    }

    #[must_use]
    pub fn right(&self) -> bool {
        self.findings().is_empty() && self.audit.wrongs() == 0
    }

    pub fn print(&self) {
        let beats = self.heartbeats;
        let millis = |us: u64| us as f64 / 1_000.0;
        println!(
            "\n{} sessions opened in {:.1} s, held for {:.0} s, ended within {:.1} s; {} dropped",
            self.sessions, self.opening_seconds, self.held_seconds, self.ending_seconds, self.dropped
        );
        println!(
            "heartbeats {}: RTT p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms",
            beats.n,
            millis(beats.p50_us),
            millis(beats.p99_us),
            millis(beats.max_us)
        );
        let [before, with, after] = self.dispatch;
        println!(
            "t3-dispatch: {} KiB ({} anonymous) and {} descriptors before, {} ({}) and {} with all, {} ({}) and {} after",
            before.rss_kib,
            before.anonymous_kib,
            before.descriptors,
            with.rss_kib,
            with.anonymous_kib,
            with.descriptors,
            after.rss_kib,
            after.anonymous_kib,
            after.descriptors
        );
        let growth = self.growth_kib();
        let first = self.samples.first();
        println!(
            "memory over the hold, {} samples: t3-dispatch {} KiB and at most {} more, t3-trace {} KiB and at most {} more",
            self.samples.len(),
            first.map_or(0, |sample| sample.dispatch_kib),
            growth.0,
            first.map_or(0, |sample| sample.trace_kib),
            growth.1
        );
        println!(
            "CPU over the hold, percent of a core: t3-dispatch {:.1}, t3-trace {:.1}, clients {:.1}, serves {:.1}",
            self.cpu.dispatch, self.cpu.trace, self.cpu.browsers, self.cpu.serves
        );
        for row in &self.audit.rows {
            println!(
                "records: {} open, {} close, {} missing, {} unknown; evidence {:?}; {} likely; kernel events lost {}",
                self.audit.opens,
                self.audit.closes,
                self.audit.missing,
                self.unknown,
                row.kernel,
                row.likely,
                self.lost_in_all
            );
        }
        if let Some(limits) = &self.limits {
            limits.print();
        }
        if self.right() {
            println!("\nnone dropped, memory constant, one correct record per session");
            return;
        }
        println!("\nWRONG:");
        self.findings().iter().for_each(|finding| println!("  {finding}"));
        self.audit.kinds.iter().for_each(|(kind, count)| println!("  {count:>6} x {kind}"));
        println!("\nexamples:");
        self.audit.examples.iter().for_each(|example| println!("  {example}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::limits::{Kind, Row};

    fn report() -> Report {
        let held = |rss_kib, descriptors| Held { rss_kib, anonymous_kib: rss_kib / 2, descriptors };
        let sample = |seconds, dispatch_kib| Sample { seconds, dispatch_kib, trace_kib: 50_000 };
        Report {
            seed: 1,
            sessions: 1_000,
            opening_seconds: 1.0,
            held_seconds: 10.0,
            ending_seconds: 1.0,
            unopened: 0,
            dropped: 0,
            registered: 1_000,
            heartbeats: Times::default(),
            dispatch: [held(9_000, 20), held(300_000, 2_020), held(200_000, 22)],
            settle_seconds: 0,
            samples: vec![sample(0.0, 300_000), sample(5.0, 305_000), sample(10.0, 299_000)],
            cpu: Cpu::default(),
            unknown: 0,
            lost: 0,
            lost_in_all: 0,
            map_full: 0,
            audit: Audit { opens: 1_000, closes: 1_000, ..Audit::default() },
            limits: Some(Limits {
                rows: vec![Row { kind: Kind::Idle, resident: 40_000, sockets: 0 }],
                memory_high: 3 << 30,
                memory_max: 4 << 30,
            }),
        }
    }

    #[test]
    fn a_good_run_has_no_finding() {
        assert_eq!(report().findings(), [""; 0]);
        assert_eq!(report().growth_kib(), (5_000, 0));
    }

    #[test]
    fn each_violated_limit_is_one_finding() {
        let spoil: [fn(&mut Report); 11] = [
            |report| report.dropped = 1,
            |report| report.unopened = 1,
            |report| report.registered = 999,
            |report| report.unknown = 1,
            |report| report.lost_in_all = 2,
            |report| report.lost = 1,
            |report| report.map_full = 1,
            |report| report.audit.closes = 999,
            |report| report.samples[1].dispatch_kib = 307_000,
            |report| report.dispatch[2].descriptors = 40,
            |report| report.limits.iter_mut().for_each(|limits| limits.memory_high = 1 << 20),
        ];
        for (number, spoil) in spoil.iter().enumerate() {
            let mut report = report();
            spoil(&mut report);
            assert_eq!(report.findings().len(), 1, "{number}: {:?}", report.findings());
        }
        let mut settled = Report { settle_seconds: 130, ..report() };
        assert_eq!(settled.findings().len(), 1, "memory stays");
        settled.dispatch[2].anonymous_kib = settled.dispatch[0].anonymous_kib + RETURNED_KIB;
        assert_eq!(settled.findings(), [""; 0]);
        let unmeasured = Report { samples: Vec::new(), ..report() };
        assert_eq!(unmeasured.findings().len(), 2);
    }
}
