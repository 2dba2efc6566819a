//! Search for sessions without a close in a large journal, as t3-trace does when it starts.
//!
//! docs/PERFORMANCE.md has the numbers of `T3_RECORDS=1000000` in a release build; the default is a
//! tenth of that. Needs root.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

mod large_journal;

use std::{
    collections::BTreeSet,
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use large_journal::{Records, conn, cpu, high_water, wait_for_record};
use serde::{Deserialize, Serialize};
use t3_record::Verdict;
use t3_testkit::{journald::Journal, sys};
use t3_trace_daemon::reconcile::scan::{self, Found, From};
use t3_trace_host::journal_trust::Trust;

/// Number of entries without `T3_RECORDS`.
const ENTRIES: u64 = 100_000;
/// Number of entries of the smaller journal.
const FEW: u64 = 10_000;
/// Sessions without a close.
const ORPHANS: u64 = 300;
/// Sessions that are open at the same time, the others.
const AT_ONCE: u64 = 100;
/// Limit of memory, as a multiple of that of the smaller journal.
const GROWTH: f64 = 1.5;
/// File for the report of the child process.
const REPORT: &str = "T3_TEST_REPORT";

/// What the child process found and used.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    /// Sessions without a close.
    left: BTreeSet<String>,
    entries: u64,
    skipped: u64,
    most_at_once: usize,
    scan: Duration,
    /// CPU time of the scan: of this process and of journalctl.
    cpu: [Duration; 2],
    /// A second scan, from the last entry.
    entries_again: u64,
    again: Duration,
    /// The query for the closes of these sessions, and of as many closed ones.
    recorded: BTreeSet<String>,
    query: Duration,
    peak_kib: u64,
}

#[tokio::test]
#[ignore = "the body of the child process of the test below; run by it"]
async fn reads_the_journal() {
    let path = env::var_os(REPORT).expect("run by the test below");
    let mut left = BTreeSet::new();
    let mut most_at_once = 0;
    let mut began = Instant::now();
    scan::sync().await.unwrap();
    let scanned = scan::scan(&From::Boots, Trust::default(), |found| {
        match found {
            Found::Open(open) => left.insert(open.conn),
            Found::Close { conn } => left.remove(&conn),
        };
        most_at_once = most_at_once.max(left.len());
    });
    let scanned = scanned.await.unwrap();
    let (scan, cpu) = (began.elapsed(), cpu());
    began = Instant::now();
    let cursor = From::Cursor(scanned.cursor.unwrap());
    let again = scan::scan(&cursor, Trust::default(), |_| {}).await.unwrap();
    assert!(!again.restarted);
    let (again, entries_again) = (began.elapsed(), again.entries);
    began = Instant::now();
    let asked: Vec<String> = left.iter().cloned().chain((0..ORPHANS).map(|n| conn(2 * n + 1))).collect();
    let recorded = scan::recorded(&asked, Trust::default()).await.unwrap();
    let query = began.elapsed();
    let peak_kib = high_water(&fs::read_to_string("/proc/self/status").unwrap()).unwrap();
    let (entries, skipped) = (scanned.entries, scanned.skipped);
    let report = Report {
        left,
        entries,
        skipped,
        most_at_once,
        scan,
        cpu,
        entries_again,
        again,
        recorded,
        query,
        peak_kib,
    };
    fs::write(path, serde_json::to_vec(&report).unwrap()).unwrap();
}

/// Whether a session gets no close: an even number, since [`reads_the_journal`] takes odd ones as
/// closed.
fn is_orphan(n: u64, sessions: u64) -> bool {
    let step = sessions / ORPHANS / 2 * 2;
    n.is_multiple_of(step) && n / step < ORPHANS
}

/// Fills a journal with this many entries and reads it.
fn measure(entries: u64) -> Report {
    let journal = Journal::unfollowed().unwrap();
    let records = Records::to(&journal);
    let sessions = u64::midpoint(entries, ORPHANS);
    for n in 0..sessions + AT_ONCE {
        if n < sessions {
            records.open(n);
        }
        if let Some(closing) = n.checked_sub(AT_ONCE)
            && !is_orphan(closing, sessions)
        {
            records.close(closing, Verdict::ClientClosed);
        }
    }
    wait_for_record(&journal.directory().unwrap(), sessions - 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report");
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "reads_the_journal"]).env(REPORT, &path).stdout(Stdio::null());
    journal.lend(&mut command).unwrap();
    let mut child = command.spawn().unwrap();
    let journalctl = peaks_of_children(&mut child);
    assert!(child.wait().unwrap().success());
    let report: Report = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    eprintln!(
        "{entries} entries: scan {:.2?}, CPU {:.2?} and journalctl {:.2?}; from the cursor {:.2?}; query of {} \
         sessions {:.2?}; {} KiB, journalctl {} KiB and {} KiB of files",
        report.scan,
        report.cpu[0],
        report.cpu[1],
        report.again,
        2 * ORPHANS,
        report.query,
        report.peak_kib,
        journalctl[1],
        journalctl[0].saturating_sub(journalctl[1]),
    );
    let expected: BTreeSet<_> = (0..sessions).filter(|n| is_orphan(*n, sessions)).map(conn).collect();
    assert_eq!(expected.len() as u64, ORPHANS);
    assert_eq!(report.left, expected, "sessions without a close");
    assert_eq!((report.entries, report.skipped, report.entries_again), (entries, 0, 0));
    assert_eq!(report.recorded, (0..ORPHANS).map(|n| conn(2 * n + 1)).collect(), "sessions with a close");
    report
}

/// Waits for the end of a process. Returns the peaks of the journalctl that it runs in KiB, with
/// and without the pages of the files.
fn peaks_of_children(parent: &mut Child) -> [u64; 2] {
    let mut peaks = [0; 2];
    while parent.try_wait().unwrap().is_none() {
        for child in children(parent.id()) {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            // Before it executes journalctl it has the memory of its parent.
            if !status.starts_with("Name:\tjournalctl\n") {
                continue;
            }
            for (peak, name) in peaks.iter_mut().zip(["VmHWM:", "RssAnon:"]) {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
                *peak = (*peak).max(kib.unwrap_or(0));
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    peaks
}

fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).into_iter().flatten();
    let lists =
        threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect()
}

#[test]
fn sessions_without_a_close_are_found_in_constant_memory() {
    if !sys::is_root() {
        assert!(env::var_os("CI").is_none(), "CI must run this as root: the private journald needs it");
        eprintln!("SKIPPED: needs root for a private journald");
        return;
    }
    let fewer = if env::var_os("T3_QUICK").is_some() { 2 * FEW } else { ENTRIES };
    let entries = env::var("T3_RECORDS").map_or(fewer, |number| number.parse().unwrap());
    let few = measure(FEW);
    let all = measure(entries);
    let open = usize::try_from(ORPHANS + AT_ONCE + 1).unwrap();
    assert!(all.most_at_once <= open, "{} sessions at the same time", all.most_at_once);
    #[expect(clippy::cast_precision_loss, reason = "KiB of a process")]
    let growth = all.peak_kib as f64 / few.peak_kib as f64;
    assert!(growth <= GROWTH, "{} KiB, then {} KiB", few.peak_kib, all.peak_kib);
}
