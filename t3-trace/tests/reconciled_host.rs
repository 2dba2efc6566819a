//! Reconciled records in `closes` and `explain`, with a private journald. Needs root.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use t3_journal::{Sink, Writer};
use t3_record::{
    Cause, CloseRecord, KernelSource, Segment, Verdict,
    reconcile::{Moment, UnclosedEnd, UnclosedSession, mark, reconcile},
    vocabulary::Reconciled,
};
use t3_testkit::{journald::Journal, sys, wait};

const HOUR: u64 = 3600;

/// The lines of `--json`, or the page of `explain --json`.
fn run(directory: &Path, options: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-trace"));
    let (name, rest) = options.split_first().unwrap();
    let output =
        command.arg(name).arg("--json").arg("--directory").arg(directory).args(rest).output().unwrap();
    assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Session ids in the order of the output.
fn conns(directory: &Path, options: &[&str]) -> Vec<String> {
    run(directory, options).iter().map(|line| line["conn"].as_str().unwrap().to_owned()).collect()
}

/// A time in seconds since the epoch, of a boot at the epoch.
fn moment(seconds: u64) -> Moment {
    Moment { wall_us: seconds * 1_000_000, monotonic: seconds * 1_000_000_000 }
}

#[test]
fn records_are_selected_listed_and_explained_by_the_time_of_the_close() {
    if !sys::is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run this as root: the private journald needs it");
        eprintln!("SKIPPED: needs root for a private journald");
        return;
    }
    let journal = Journal::unfollowed().unwrap();
    let directory = journal.directory().unwrap();
    let socket = directory.ancestors().nth(2).unwrap().join("systemd/journal/socket");
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let ordinary = |conn: &str| {
        CloseRecord::new(
            "ann".to_owned(),
            "192.0.2.7".to_owned(),
            5000,
            Cause::UpstreamClosed,
            Verdict::ServeOom,
            Segment::Serve,
            conn.to_owned(),
            KernelSource::Tracepoint,
        )
    };
    let session = UnclosedSession {
        conn: "power".to_owned(),
        user: "ann".to_owned(),
        ip: "192.0.2.7".to_owned(),
        ray: None,
        opened: moment(now - 3 * HOUR),
    };
    let power = reconcile(&session, UnclosedEnd::PowerLoss, Some(moment(now - 2 * HOUR)));
    let mut spool = ordinary("spool");
    mark(&mut spool, Reconciled::Spool, (now - 4 * HOUR) * 1_000_000);
    // Entries in this order; the closes are in another one.
    let writer = Writer::start_with("t3-dispatch", Sink::Journald, &socket, 64).unwrap();
    for record in [&ordinary("first"), &power, &spool, &ordinary("second")] {
        drop(writer.write(record.to_fields()));
    }
    assert_eq!(writer.flush(Duration::from_secs(10)), 0, "records that did not reach journald");
    wait::until("the records in the journal", Duration::from_secs(20), || {
        (conns(&directory, &["closes"]).len() >= 4).then_some(())
    })
    .unwrap();

    let ended = format!("@{}", now - 2 * HOUR);
    for (options, expected) in [
        (&["closes"][..], &["spool", "power", "first", "second"][..]),
        (&["closes", "--since", "1 hour ago"], &["first", "second"]),
        (&["closes", "--until", "1 hour ago"], &["spool", "power"]),
        (&["closes", "--since", "3 hours ago", "--until", "1 hour ago"], &["power"]),
        (&["closes", "--verdict", "unknown"], &["power"]),
        (&["closes", "--user", "bob"], &[]),
        (&["explain", "--user", "ann", "--at", &ended], &["power"]),
        (&["explain", "spool"], &["spool"]),
        // The last close, not the last entry.
        (&["explain", "--last"], &["second"]),
    ] {
        assert_eq!(conns(&directory, options), expected, "{options:?}");
    }
    let page = run(&directory, &["explain", "power"]).remove(0);
    assert_eq!(page["at_ms"], (now - 2 * HOUR) * 1000);
    let answer = page["answer"].as_str().unwrap();
    assert!(
        answer.contains("went down without a shutdown") && answer.contains("wrote this one later"),
        "{answer}"
    );
    let page = serde_json::to_string(&run(&directory, &["explain", "spool"])).unwrap();
    assert!(page.contains("written again by t3-trace"), "{page}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-trace"));
    let output = command.args(["closes", "--plain", "--directory"]).arg(&directory).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("  reconciled").count(), 2, "{text}");
    assert!(text.contains("\nreconciled by t3-trace: 2\n"), "{text}");
    assert!(text.contains("power_loss") && text.contains("unknown"), "{text}");
}
