//! What is printed at the end, and what goes into the JSON.

use serde::Serialize;

use super::{
    audit::{Audit, Row, Times},
    process_usage::Held,
};

/// Memory and descriptors of one program, before and after.
#[derive(Debug, Serialize)]
pub struct Kept {
    /// Which.
    pub program: &'static str,
    /// After its first sessions.
    pub before: Held,
    /// After all.
    pub after: Held,
}

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Repeats the plans.
    pub seed: u64,
    /// What the records say.
    pub audit: Audit,
    /// What the programs hold.
    pub kept: Vec<Kept>,
    /// For each time that t3-trace was killed: from its new start until dispatch was connected to
    /// it again, in milliseconds.
    pub back_after_ms: Vec<u64>,
    /// Sessions that t3-trace still held at the end.
    pub held: u64,
    /// Kernel events that t3-trace lost in its last life, and insertions that a full map refused.
    pub lost: (u64, u64),
    /// How long reading the journal back took, in seconds.
    pub read_back: f64,
    /// What is wrong besides records.
    pub complaints: Vec<String>,
}

/// Growth of memory that is still called "back near the start", in percent of what it was.
const GROWTH: u64 = 150;
/// Below this many KiB a ratio says nothing.
const SMALL_KIB: u64 = 16 << 10;
/// Below this a time on a busy machine says nothing; waiting for one neighbour's evidence would
/// cost 250 ms.
const NOISE_US: u64 = 10_000;
/// Descriptors that may come and go.
const SPARE: usize = 8;

impl Kept {
    fn complaint(&self) -> Option<String> {
        let Self { program, before, after } = self;
        let allowed = before.rss_kib * GROWTH / 100;
        let grown = after.rss_kib > allowed.max(before.rss_kib + SMALL_KIB);
        let leaked = after.descriptors > before.descriptors + SPARE;
        (grown || leaked).then(|| format!("{program} held {before:?} and now {after:?}"))
    }
}

impl Report {
    fn row(&self, phase: &str) -> Option<&Row> {
        self.audit.rows.iter().find(|row| row.phase == phase)
    }

    /// Judges what is not about single records.
    pub fn complain(&mut self) {
        let mut complaints: Vec<String> = self.kept.iter().filter_map(Kept::complaint).collect();
        if self.held > 0 {
            complaints.push(format!("t3-trace still holds {} sessions", self.held));
        }
        if let (Some(with), Some(stopped)) = (self.row("with"), self.row("stopped")) {
            let (open, pass_on) = (stopped.open.p50_us, stopped.pass_on.p50_us);
            let bound = |times: Times| 3 * times.p50_us.max(NOISE_US);
            if open > bound(with.open) || pass_on > bound(with.pass_on) {
                complaints.push(format!(
                    "while t3-trace stood still others waited: open {open} us, pass on {pass_on} us; else {} and {}",
                    with.open.p50_us, with.pass_on.p50_us
                ));
            }
            if stopped.seconds / stopped.sessions as f64 > 3.0 * with.seconds / with.sessions as f64 {
                complaints.push("while t3-trace stood still the pace was not kept".to_owned());
            }
            if !stopped.kernel.contains_key("timeout") {
                complaints.push("t3-trace stood still and no record says kernel=timeout".to_owned());
            }
        }
        self.complaints.append(&mut complaints);
    }

    /// Everything is right.
    #[must_use]
    pub fn right(&self) -> bool {
        self.complaints.is_empty() && self.audit.wrongs() == 0
    }

    /// Prints it.
    pub fn print(&self) {
        let audit = &self.audit;
        println!(
            "\nseed {}; t3-trace was killed {} times, and connected again so many ms after its next start: {:?}",
            self.seed,
            self.back_after_ms.len(),
            self.back_after_ms
        );
        println!(
            "sessions opened {} = ws open {}; sessions with a record {} = ws close {}; missing {}; read back in {:.1} s; {} left before serve had heard of them",
            audit.opened,
            audit.opens,
            audit.expected,
            audit.closes,
            audit.missing,
            self.read_back,
            audit.unheard
        );
        println!(
            "\n{:<8} {:>8} {:>7} {:>7}  {:>17}  {:>17}  {:>19}  {:>19}  {:>12}  kernel (likely)",
            "phase",
            "sessions",
            "seconds",
            "per s",
            "open p50/p99 ms",
            "pass on p50/p99",
            "record p50/p99 ms",
            "of a cut p50/p99",
            "dispatch KiB"
        );
        for row in &audit.rows {
            let kernel: Vec<_> = row.kernel.iter().map(|(word, count)| format!("{word} {count}")).collect();
            println!(
                "{:<8} {:>8} {:>7.1} {:>7.0}  {:>17}  {:>17}  {:>19}  {:>19}  {:>12}  {} ({})",
                row.phase,
                row.sessions,
                row.seconds,
                row.sessions as f64 / row.seconds,
                pair(row.open),
                pair(row.pass_on),
                pair(row.at_once),
                pair(row.cut),
                row.dispatch_kib,
                kernel.join(", "),
                row.likely
            );
        }
        println!();
        for Kept { program, before, after } in &self.kept {
            println!(
                "{program}: {} KiB, {} descriptors after the first sessions; {} KiB, {} descriptors after all",
                before.rss_kib, before.descriptors, after.rss_kib, after.descriptors
            );
        }
        println!(
            "t3-trace at the end: {} sessions held, {} events lost, {} refused by full maps",
            self.held, self.lost.0, self.lost.1
        );
        if self.right() {
            println!("\nevery record is there once and right");
            return;
        }
        println!("\nWRONG ({}):", audit.wrongs() + self.complaints.len());
        self.complaints.iter().for_each(|complaint| println!("  {complaint}"));
        audit.kinds.iter().for_each(|(kind, count)| println!("  {count:>6} x {kind}"));
        println!("\nexamples:");
        audit.examples.iter().for_each(|example| println!("  {example}"));
    }
}

fn pair(times: Times) -> String {
    let millis = |us: u64| us as f64 / 1_000.0;
    format!("{:.1} / {:.1}", millis(times.p50_us), millis(times.p99_us))
}
