//! Cost of `t3-trace closes` on a large journal, compared with `journalctl -o json`.
//!
//! A private journald gets full records, and both programs read them. docs/PERFORMANCE.md has the
//! numbers of `T3_RECORDS=1000000` and `T3_BIN_DIR=target/release`; the default is a tenth of that.
//! The limits are ratios, not times.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

mod large_journal;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use large_journal::{Records, cpu, high_water, wait_for_record};
use t3_record::Verdict;
use t3_testkit::journald::Journal;

/// Number of records without `T3_RECORDS`.
const RECORDS: u64 = 100_000;
/// Number of records at the first measurement of memory.
const FIRST: u64 = 20_000;
/// One in this many sessions reconnects with a gap.
const BACK: u64 = 10;
/// Limit of the CPU time of the summary as a multiple of journalctl's. It takes about 1.0 in a
/// debug build and 0.5 in a release build.
const FACTOR: f64 = 2.0;
/// Limit of memory growth from the first records to all.
const GROWTH_KIB: u64 = 2048;

/// Result of a program run.
struct Run {
    stdout: String,
    took: Duration,
    /// User and system time, including its children.
    cpu: Duration,
    /// Peak resident memory of the program itself.
    peak_kib: u64,
}

fn run(mut command: Command) -> Run {
    // This program has one test, so all children are of that test.
    let (began, before) = (Instant::now(), cpu()[1]);
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watched = thread::spawn(move || {
        let mut peak = 0;
        // The kernel keeps the peak, so only growth just before the exit can be missed.
        while let Some(kib) = fs::read_to_string(&status).ok().as_deref().and_then(high_water) {
            peak = kib;
            thread::sleep(Duration::from_millis(5));
        }
        peak
    });
    let mut stdout = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        std::io::Read::read_to_string(&mut pipe, &mut stdout).unwrap();
    }
    assert!(child.wait().unwrap().success(), "{command:?}");
    let (took, cpu) = (began.elapsed(), cpu()[1].saturating_sub(before));
    Run { stdout, took, cpu, peak_kib: watched.join().unwrap() }
}

fn summary(directory: &Path) -> Run {
    let mut command = Command::new(t3_testkit::harness::find("t3-trace").unwrap());
    command.args(["closes", "--summary", "--directory"]).arg(directory);
    command.stdout(Stdio::piped());
    run(command)
}

#[test]
fn the_summary_of_a_large_journal_is_as_fast_as_journalctl_in_constant_memory() {
    let fewer = if std::env::var_os("T3_QUICK").is_some() { 2 * FIRST } else { RECORDS };
    let records = std::env::var("T3_RECORDS").map_or(fewer, |number| number.parse().unwrap());
    let journal = Journal::unfollowed().unwrap();
    let directory = journal.directory().unwrap();
    let sender = Records::to(&journal);
    let mut verdicts: BTreeMap<Verdict, u64> = BTreeMap::new();
    let mut write = |n: u64| {
        let verdict = Verdict::ALL[usize::try_from(n * n).unwrap() % Verdict::ALL.len()];
        *verdicts.entry(verdict).or_default() += 1;
        sender.close(n, verdict);
        if n.is_multiple_of(BACK) {
            sender.open(n);
        }
    };
    (0..FIRST).for_each(&mut write);
    wait_for_record(&directory, FIRST - 1);
    let first = summary(&directory);
    assert!(first.stdout.starts_with(&format!("{FIRST} closes\n")), "{}", first.stdout);
    (FIRST..records).for_each(&mut write);
    wait_for_record(&directory, records - 1);
    journal.kill().unwrap();

    let all = summary(&directory);
    let mut json = Command::new("journalctl");
    json.args(["--quiet", "--no-pager", "--output=json", "--directory"]).arg(&directory);
    json.stdout(Stdio::null());
    let json = run(json);
    let print = |name: &str, run: &Run| {
        eprintln!("{name:22} {:7.2?} elapsed  {:7.2?} CPU  {:6} KiB", run.took, run.cpu, run.peak_kib);
    };
    eprintln!("{records} records");
    print("journalctl -o json", &json);
    print("closes --summary", &all);
    print(&format!("the same of {FIRST}"), &first);

    assert!(all.stdout.starts_with(&format!("{records} closes\n")), "{}", all.stdout);
    for (verdict, count) in &verdicts {
        let line = format!("  {count:>8}  {verdict:18}  ");
        assert!(all.stdout.contains(&line), "{line}in\n{}", all.stdout);
    }
    assert!(all.stdout.contains("reconnected after  p10 3.0s  p50 3.0s"), "{}", all.stdout);
    let factor = all.cpu.as_secs_f64() / json.cpu.as_secs_f64();
    assert!(factor <= FACTOR, "{factor:.2} times the CPU time of journalctl");
    let growth = all.peak_kib.saturating_sub(first.peak_kib);
    assert!(first.peak_kib > 0 && growth <= GROWTH_KIB, "{} KiB, then {} KiB", first.peak_kib, all.peak_kib);
}
