//! Report of chaos, printed and as JSON.

use serde::Serialize;
use t3_record::wire::JournalState;

use super::{
    audit::{Audit, Row, Times},
    process_usage::Held,
};

/// Memory and descriptors of a program, before and after.
#[derive(Debug, Serialize)]
pub struct Kept {
    pub program: &'static str,
    /// After the first sessions.
    pub before: Held,
    pub after: Held,
}

/// Result of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Seed of the plans.
    pub seed: u64,
    pub audit: Audit,
    pub kept: Vec<Kept>,
    /// For each kill of t3-trace: time from the start until dispatch is connected, in milliseconds.
    pub back_after_ms: Vec<u64>,
    /// Number of kills: dispatch alone, t3-trace alone, both.
    pub kills: [u32; 3],
    /// Records that t3-trace has compared with the journal.
    pub journal: JournalState,
    /// Open sessions in t3-trace at the end.
    pub held: u64,
    /// Kernel events that the last t3-trace lost, and insertions into a full map.
    pub lost: (u64, u64),
    /// Duration of reading the journal, in seconds.
    pub read_back: f64,
    /// Findings other than mismatches.
    pub findings: Vec<String>,
}

/// Maximum memory at the end, in percent of the start.
const GROWTH: u64 = 150;
/// Growth in KiB below which the ratio is ignored.
const SMALL_KIB: u64 = 16 << 10;
/// Times below this are noise on a busy host; waiting for the evidence of another session costs
/// 250 ms.
const NOISE_US: u64 = 10_000;
/// Tolerated difference of descriptors.
const SPARE: usize = 8;

impl Kept {
    fn finding(&self) -> Option<String> {
        let Self { program, before, after } = self;
        let allowed = before.rss_kib * GROWTH / 100;
        let grown = after.rss_kib > allowed.max(before.rss_kib + SMALL_KIB);
        let leaked = after.descriptors > before.descriptors + SPARE;
        (grown || leaked).then(|| format!("{program} had {before:?}, now {after:?}"))
    }
}

impl Report {
    fn row(&self, phase: &str) -> Option<&Row> {
        self.audit.rows.iter().find(|row| row.phase == phase)
    }

    /// Adds findings other than mismatches of single records.
    pub fn judge(&mut self) {
        let mut findings: Vec<String> = self.kept.iter().filter_map(Kept::finding).collect();
        if self.held > 0 {
            findings.push(format!("t3-trace still has {} open sessions", self.held));
        }
        if self.journal.lost > 0 {
            findings.push(format!("t3-trace has lost {} records", self.journal.lost));
        }
        if self.kills.iter().sum::<u32>() > 2 && self.kills.contains(&0) {
            findings.push("one combination of dispatch and t3-trace was never killed".to_owned());
        }
        if self.row("full").is_some() && self.journal.missing == 0 {
            findings.push("the full disk dropped no record that t3-trace missed".to_owned());
        }
        if let (Some(with), Some(stopped)) = (self.row("with"), self.row("stopped")) {
            let (open, pass_on) = (stopped.open.p50_us, stopped.pass_on.p50_us);
            let bound = |times: Times| 3 * times.p50_us.max(NOISE_US);
            if open > bound(with.open) || pass_on > bound(with.pass_on) {
                findings.push(format!(
                    "sessions waited for the stopped t3-trace: open {open} us, pass on {pass_on} us; otherwise {} and {}",
                    with.open.p50_us, with.pass_on.p50_us
                ));
            }
            if stopped.seconds / stopped.sessions as f64 > 3.0 * with.seconds / with.sessions as f64 {
                findings.push("the pace was lower while t3-trace was stopped".to_owned());
            }
            if !stopped.kernel.contains_key("timeout") {
                findings.push("no record with kernel=timeout while t3-trace was stopped".to_owned());
            }
        }
        self.findings.append(&mut findings);
    }

    #[must_use]
    pub fn right(&self) -> bool {
        self.findings.is_empty() && self.audit.wrongs() == 0
    }

    pub fn print(&self) {
        let audit = &self.audit;
        println!(
            "\nseed {}; t3-trace was killed {} times; ms from each start until connected: {:?}",
            self.seed,
            self.back_after_ms.len(),
            self.back_after_ms
        );
        println!(
            "sessions opened {} = ws open {}; sessions with a record {} = ws close {}; missing {}; read back in {:.1} s; {} clients left before their request reached serve",
            audit.opened,
            audit.opens,
            audit.expected,
            audit.closes,
            audit.missing,
            self.read_back,
            audit.unseen
        );
        let [dispatch, trace, both] = self.kills;
        println!(
            "killed: dispatch {dispatch} times, t3-trace {trace} times, both {both} times; {} sessions interrupted; the full disk did not take {} ws open; t3-trace wrote {:?}; {:?}",
            audit.interrupted, audit.unstored, audit.by_trace, self.journal
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
            "t3-trace at the end: {} open sessions, {} events lost, {} insertions into full maps failed",
            self.held, self.lost.0, self.lost.1
        );
        if self.right() {
            println!("\none correct record per session");
            return;
        }
        println!("\nWRONG ({}):", audit.wrongs() + self.findings.len());
        self.findings.iter().for_each(|finding| println!("  {finding}"));
        audit.kinds.iter().for_each(|(kind, count)| println!("  {count:>6} x {kind}"));
        println!("\nexamples:");
        audit.examples.iter().for_each(|example| println!("  {example}"));
    }
}

fn pair(times: Times) -> String {
    let millis = |us: u64| us as f64 / 1_000.0;
    format!("{:.1} / {:.1}", millis(times.p50_us), millis(times.p99_us))
}
