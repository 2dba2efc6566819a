//! What a soak found out, and whether that is good. Pure, but for printing.

use serde::Serialize;

use crate::chaos::{
    audit::{Audit, Times},
    process_usage::Held,
};

/// Growth of memory that is still called flat, in percent of what it was, or [`FLAT_KIB`] where
/// that is more.
const FLAT_PERCENT: u64 = 2;
/// An allocator's arena more or less.
const FLAT_KIB: u64 = 2 << 10;
/// Sessions for one kernel event that may be lost. The kernel skips a program that would interrupt
/// itself on its CPU, and counts that; the records have to be right all the same, and one of them
/// says it. A ring or a map that overflows loses hundreds at once.
const FOR_ONE_LOST: u64 = 1_000;
/// Descriptors that may come and go.
const SPARE: usize = 8;

/// Memory at one moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// Since all were open and had had a heartbeat.
    pub seconds: f64,
    /// Resident memory of t3-dispatch, in KiB.
    pub dispatch_kib: u64,
    /// The same of t3-trace.
    pub trace_kib: u64,
}

/// CPU time used while the sessions were held, in percent of one core.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Cpu {
    /// t3-dispatch.
    pub dispatch: f64,
    /// t3-trace.
    pub trace: f64,
    /// The browsers, this program.
    pub browsers: f64,
    /// All serves.
    pub serves: f64,
}

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Repeats the plans.
    pub seed: u64,
    /// Sessions.
    pub sessions: u32,
    /// How long it took to open all of them.
    pub opening_seconds: f64,
    /// How long they were held.
    pub held_seconds: f64,
    /// From the first end to the last.
    pub ending_seconds: f64,
    /// Sessions that did not open.
    pub unopened: u32,
    /// Sessions that ended before they were to.
    pub dropped: u32,
    /// Sessions that t3-trace knew of at the end of the hold.
    pub registered: u64,
    /// How long a heartbeat took to be answered.
    pub heartbeats: Times,
    /// What dispatch held before the first session, with all of them, and after the last.
    pub dispatch: [Held; 3],
    /// Memory while they were held; the first is what the others are measured against.
    pub samples: Vec<Sample>,
    /// What it cost.
    pub cpu: Cpu,
    /// Records that say `unknown`.
    pub unknown: usize,
    /// Kernel events that records say were lost.
    pub lost: u64,
    /// Kernel events lost, as t3-trace counts them.
    pub lost_in_all: u64,
    /// Insertions that full maps refused.
    pub map_full: u64,
    /// Every record against the truth about its session.
    pub audit: Audit,
}

impl Report {
    /// The most that memory rose above its first sample, in KiB: of t3-dispatch, of t3-trace.
    #[must_use]
    pub fn growth_kib(&self) -> (u64, u64) {
        let over = |of: fn(&Sample) -> u64| {
            let first = self.samples.first().map_or(0, of);
            self.samples.iter().map(of).max().unwrap_or(0).saturating_sub(first)
        };
        (over(|sample| sample.dispatch_kib), over(|sample| sample.trace_kib))
    }

    /// What is wrong besides single records.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut none = |count: u64, what: &str| {
            if count > 0 {
                wrong.push(format!("{count} {what}"));
            }
        };
        none(self.unopened.into(), "sessions did not open");
        none(self.dropped.into(), "sessions were dropped");
        none(u64::from(self.sessions).abs_diff(self.registered), "sessions more or less known to t3-trace");
        none(self.unknown as u64, "records say unknown");
        none(self.map_full, "insertions were refused by full maps");
        if self.lost_in_all > u64::from(self.sessions) / FOR_ONE_LOST {
            wrong.push(format!("{} kernel events were lost", self.lost_in_all));
        }
        if self.lost > self.lost_in_all {
            wrong.push(format!("records say {} lost events, t3-trace {}", self.lost, self.lost_in_all));
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
                    "{program} held {first} KiB with all sessions open, and later {grown} KiB more"
                ));
            }
        }
        let [before, with, after] = self.dispatch.map(|held| held.descriptors);
        if with < 2 * sessions || after > before + SPARE {
            wrong.push(format!(
                "t3-dispatch had {before} descriptors, with all open {with}, after all {after}"
            ));
        }
        wrong
    }

    /// Everything is right.
    #[must_use]
    pub fn right(&self) -> bool {
        self.complaints().is_empty() && self.audit.wrongs() == 0
    }

    /// Prints it.
    pub fn print(&self) {
        let beats = self.heartbeats;
        let millis = |us: u64| us as f64 / 1_000.0;
        println!(
            "\n{} sessions opened in {:.1} s, held for {:.0} s, ended within {:.1} s; {} dropped",
            self.sessions, self.opening_seconds, self.held_seconds, self.ending_seconds, self.dropped
        );
        println!(
            "heartbeats answered {}: p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms",
            beats.n,
            millis(beats.p50_us),
            millis(beats.p99_us),
            millis(beats.max_us)
        );
        let [before, with, after] = self.dispatch;
        println!(
            "t3-dispatch: {} KiB and {} descriptors before, {} and {} with all, {} and {} after",
            before.rss_kib,
            before.descriptors,
            with.rss_kib,
            with.descriptors,
            after.rss_kib,
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
            "CPU over the hold, percent of a core: t3-dispatch {:.1}, t3-trace {:.1}, browsers {:.1}, serves {:.1}",
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
        if self.right() {
            println!("\nnone was dropped, memory stayed, every record is there once and right");
            return;
        }
        println!("\nWRONG:");
        self.complaints().iter().for_each(|complaint| println!("  {complaint}"));
        self.audit.kinds.iter().for_each(|(kind, count)| println!("  {count:>6} x {kind}"));
        println!("\nexamples:");
        self.audit.examples.iter().for_each(|example| println!("  {example}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let held = |rss_kib, descriptors| Held { rss_kib, descriptors };
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
            samples: vec![sample(0.0, 300_000), sample(5.0, 305_000), sample(10.0, 299_000)],
            cpu: Cpu::default(),
            unknown: 0,
            lost: 0,
            lost_in_all: 0,
            map_full: 0,
            audit: Audit { opens: 1_000, closes: 1_000, ..Audit::default() },
        }
    }

    #[test]
    fn a_good_run_has_no_complaint() {
        assert_eq!(report().complaints(), [""; 0]);
        assert_eq!(report().growth_kib(), (5_000, 0));
    }

    #[test]
    fn each_thing_that_may_not_be_is_complained_of() {
        let spoil: [fn(&mut Report); 10] = [
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
        ];
        for (number, spoil) in spoil.iter().enumerate() {
            let mut report = report();
            spoil(&mut report);
            assert_eq!(report.complaints().len(), 1, "{number}: {:?}", report.complaints());
        }
        let unmeasured = Report { samples: Vec::new(), ..report() };
        assert_eq!(unmeasured.complaints().len(), 2);
    }
}
