//! `t3-trace closes` with a private journald: records are written and read back.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{path::Path, process::Command, time::Duration};

use t3_journal::{Sink, Writer};
use t3_record::{Cause, CloseRecord, KernelSource, Segment, Verdict};
use t3_testkit::journald::Journal;

fn record(conn: &str, user: &str, verdict: Verdict, segment: Segment, dur_ms: u64) -> CloseRecord {
    CloseRecord::new(
        user.to_owned(),
        "192.0.2.7".to_owned(),
        dur_ms,
        Cause::UpstreamClosed,
        verdict,
        segment,
        conn.to_owned(),
        KernelSource::Tracepoint,
    )
}

/// Parses `--json`; every line must have its time.
fn records(json: &str) -> Vec<CloseRecord> {
    let timed =
        |line: &str| line.starts_with("{\"schema\":2,\"time\":\"20") && line.contains("Z\",\"user\":");
    assert!(json.lines().all(timed), "{json}");
    json.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs the program, which must succeed; returns its stdout.
fn closes(directory: &Path, options: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-trace"));
    let output = command.arg("closes").arg("--directory").arg(directory).args(options).output().unwrap();
    assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn records_are_read_back_and_every_filter_works() {
    let journal = Journal::unfollowed().unwrap();
    let directory = journal.directory().unwrap();
    let socket = directory.ancestors().nth(2).unwrap().join("systemd/journal/socket");
    let written = [
        record("c1", "alice", Verdict::ServeOom, Segment::Serve, 5000),
        record("c2", "bob", Verdict::ClientClosed, Segment::Downstream, 600_000),
        record("c3", "alice", Verdict::ClientReset, Segment::Downstream, 130_000),
    ];
    let writer = Writer::start_with("t3-dispatch", Sink::Journald, &socket, 64).unwrap();
    for record in &written {
        drop(writer.write(record.to_fields()));
    }
    assert_eq!(writer.flush(Duration::from_secs(10)), 0, "records that did not reach journald");
    t3_testkit::wait::until("the records in the journal", Duration::from_secs(20), || {
        (closes(&directory, &["--json"]).lines().count() >= written.len()).then_some(())
    })
    .unwrap();

    for (options, kept) in [
        (&[][..], &[0, 1, 2][..]),
        (&["--user", "alice"], &[0, 2]),
        (&["--verdict", "serve_oom,client_closed"], &[0, 1]),
        (&["--segment", "downstream"], &[1, 2]),
        (&["--short", "120s"], &[0]),
        (&["--since", "1 hour ago"], &[0, 1, 2]),
        (&["--until", "1 hour ago"], &[]),
        (&["--boot"], &[0, 1, 2]),
    ] {
        let options: Vec<&str> = ["--json"].iter().chain(options).copied().collect();
        let kept: Vec<CloseRecord> = kept.iter().map(|n| written[*n].clone()).collect();
        assert_eq!(records(&closes(&directory, &options)), kept, "{options:?}");
    }
    let csv = closes(&directory, &["--csv", "--user", "bob"]);
    assert!(csv.lines().count() == 2 && csv.contains("Z,bob,192.0.2.7,600000,"), "{csv}");
    // A copied journal, as one file.
    let machine = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    let copy = tempfile::tempdir().unwrap();
    let copy = copy.path().join("copied.journal");
    std::fs::copy(machine.join("system.journal"), &copy).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-trace"));
    let output = command.args(["closes", "--json", "--file"]).arg(&copy).output().unwrap();
    assert_eq!(records(&String::from_utf8_lossy(&output.stdout)), written);
    let summary = closes(&directory, &["--summary"]);
    assert!(
        summary.starts_with("3 closes\n") && summary.contains("users with unexpected disconnects: 1\n"),
        "{summary}"
    );
}

/// Sends an entry as another user, as any program of that user could. Only this thread changes its
/// user (the kernel has credentials per thread), after it has connected: only root may enter the
/// directories of the test.
fn forge(socket: &Path, record: &CloseRecord) {
    let fields = record.to_fields();
    let entry: String = fields.into_iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let journald = std::os::unix::net::UnixDatagram::unbound().unwrap();
    journald.connect(socket).unwrap();
    let sending = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        journald.send(entry.as_bytes()).unwrap();
    });
    sending.join().unwrap();
}

#[test]
fn a_close_of_another_writer_is_ignored_and_reported() {
    let journal = Journal::unfollowed().unwrap();
    let directory = journal.directory().unwrap();
    let socket = directory.ancestors().nth(2).unwrap().join("systemd/journal/socket");
    forge(&socket, &record("c1", "alice", Verdict::ServeOom, Segment::Serve, 5000));
    let ours = record("c2", "alice", Verdict::ClientClosed, Segment::Downstream, 5000);
    let writer = Writer::start_with("t3-dispatch", Sink::Journald, &socket, 64).unwrap();
    drop(writer.write(ours.to_fields()));
    assert_eq!(writer.flush(Duration::from_secs(10)), 0, "records that did not reach journald");
    // It was sent after the forged one; datagrams keep their order.
    let shown = t3_testkit::wait::until("the record in the journal", Duration::from_secs(20), || {
        Some(closes(&directory, &["--json"])).filter(|shown| !shown.is_empty())
    })
    .unwrap();
    assert_eq!(records(&shown), [ours]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-trace"));
    let output = command.args(["closes", "--json", "--directory"]).arg(&directory).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("ignored 1 records not written by"), "{said}");
}

#[test]
fn errors_have_the_stderr_of_journalctl_or_valid_values() {
    let run = |options: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_t3-trace")).arg("closes").args(options).output().unwrap()
    };
    let failed = run(&["--directory", "/no/such/journal"]);
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("journalctl failed") && said.contains("No such file or directory"), "{said}");
    let mistimed = run(&["--since", "no such time"]);
    let said = String::from_utf8_lossy(&mistimed.stderr).into_owned();
    assert_eq!(mistimed.status.code(), Some(2), "{said}");
    assert!(said.contains("expected a time, got \"no such time\"; for example 14:10"), "{said}");
    let refused = run(&["--verdict", "serve_bored"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("serve_oom") && said.contains("client_closed"), "{said}");
}

/// Exit status, stdout and stderr of `closes` for a directory.
fn outcome(directory: &Path, options: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-trace"));
    let output = command.arg("closes").arg("--directory").arg(directory).args(options).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn damaged_and_missing_files_are_not_an_empty_journal() {
    let journal = Journal::unfollowed().unwrap();
    let directory = journal.directory().unwrap();
    let socket = directory.ancestors().nth(2).unwrap().join("systemd/journal/socket");
    let writer = Writer::start_with("t3-dispatch", Sink::Journald, &socket, 64).unwrap();
    let written: Vec<CloseRecord> =
        (0..12).map(|n| record(&format!("c{n}"), "alice", Verdict::ServeOom, Segment::Serve, 5000)).collect();
    for record in &written {
        drop(writer.write(record.to_fields()));
    }
    assert_eq!(writer.flush(Duration::from_secs(10)), 0, "records that did not reach journald");
    t3_testkit::wait::until("the records in the journal", Duration::from_secs(20), || {
        (closes(&directory, &["--json"]).lines().count() >= written.len()).then_some(())
    })
    .unwrap();
    let machine = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(machine.join("system.journal")).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let noise = {
        let mut bytes = whole.clone();
        // The entries are behind the hash tables, at the end of the used part.
        bytes[used - 4096..used].fill(0x5a);
        bytes
    };
    for (name, files, code, said) in [
        ("control", &[("a.journal", &whole[..])][..], 0, ""),
        ("truncated", &[("a.journal", &whole[..used / 2])], 3, "the file is truncated"),
        ("header only", &[("a.journal", &whole[..64])], 3, "the file is truncated"),
        ("empty", &[("a.journal", &[])], 3, "the file is truncated"),
        ("text", &[("a.journal", &b"not a journal\n".repeat(1000)[..])], 3, "not a journal file"),
        ("next to a good one", &[("a.journal", &whole), ("b.journal", &whole[..used / 2])], 3, "b.journal"),
        ("noise", &[("a.journal", &noise)], 3, "damaged parts skipped"),
        ("no files", &[], 1, "no journal files"),
    ] {
        let copy = tempfile::tempdir().unwrap();
        for (file, bytes) in files {
            std::fs::write(copy.path().join(file), bytes).unwrap();
        }
        let (status, out, err) = outcome(copy.path(), &["--json"]);
        assert_eq!(status, Some(code), "{name}: {out}{err}");
        assert!(err.contains(said), "{name}: {err}");
        assert_eq!(err.is_empty(), code == 0, "{name}: {err}");
        if name == "control" || name == "next to a good one" {
            assert_eq!(records(&out), written, "{name}");
        }
        let (status, out, _) = outcome(copy.path(), &["--summary"]);
        assert_eq!(status, Some(code), "{name}");
        assert_eq!(out.contains("incomplete: "), code == 3, "{name}: {out}");
    }
}
