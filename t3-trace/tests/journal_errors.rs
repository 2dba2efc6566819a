//! `closes` and `explain` with a journalctl that reports files it cannot read: a fake one, so that
//! the injected truth is exact.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use t3_record::{Cause, CloseRecord, KernelSource, Segment, Verdict, journal::datagram};

/// Writes a journalctl that prints these entries and messages.
fn journalctl(folder: &Path, entries: &[u8], stderr: &str, no_files: bool) {
    fs::write(folder.join("entries"), entries).unwrap();
    fs::write(folder.join("messages"), stderr).unwrap();
    let files = if no_files { "echo 'No journal files were found.' >&2" } else { ":" };
    let folder_path = folder.display();
    // Without the word MESSAGE_ID: the query for the presence of files.
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n*RECONCILED*) cat {folder_path}/messages >&2;;\n*MESSAGE_ID*) cat {folder_path}/entries; \
         cat {folder_path}/messages >&2;;\n*) {files};;\nesac\n"
    );
    let path = folder.join("journalctl");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn entry() -> Vec<u8> {
    let record = CloseRecord::new(
        "ann".to_owned(),
        "192.0.2.7".to_owned(),
        5000,
        Cause::UpstreamClosed,
        Verdict::ServeOom,
        Segment::Serve,
        "kkkkkkkkkkkk1".to_owned(),
        KernelSource::Tracepoint,
    );
    let fields = record.to_fields();
    let fields = fields.iter().map(|(name, value)| (name.as_ref(), value.as_str()));
    let more = [("__REALTIME_TIMESTAMP", "1700000042123456"), ("_UID", "0")];
    let mut bytes = datagram(fields.chain(more));
    bytes.push(b'\n');
    bytes
}

fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let output: Output = Command::new(env!("CARGO_BIN_EXE_t3-trace"))
        .args(arguments)
        .args(["--directory", "/copied"])
        .env("PATH", path)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const TRUNCATED: &str = "<31>Failed to open journal file /copied/a.journal: No data available
<28>Journal file /copied/a.journal is truncated, ignoring file.
<31>mmap cache statistics: 1 context cache hit
";
const WARNING: &str = "journalctl: cannot open /copied/a.journal: the file is truncated\n";

#[test]
fn no_closes_is_not_the_same_as_a_journal_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // The control: the journal was read, and there is nothing in it.
    journalctl(folder, b"", "<31>File /copied/b.journal added.\n", false);
    let (code, out, err) = run(folder, &["closes", "--summary"]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "0 closes\n", ""));
    // A file that is ignored.
    journalctl(folder, b"", TRUNCATED, false);
    let (code, out, err) = run(folder, &["closes", "--summary"]);
    assert_eq!(code, Some(3), "{err}");
    assert!(out.starts_with("0 closes\nincomplete: "), "{out}");
    assert_eq!(
        err,
        format!("{WARNING}t3-trace: a part of the journal could not be read: closes may be missing\n")
    );
    // No files.
    journalctl(folder, b"", "", true);
    let (code, out, err) = run(folder, &["closes", "--summary"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("no journal files in /copied"), "{err}");
}

#[test]
fn results_of_a_journal_that_was_read_in_part_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (stderr, expected) in [("", Some(0)), (TRUNCATED, Some(3))] {
        journalctl(folder, &entry(), stderr, false);
        for arguments in [&["closes", "--json"][..], &["closes", "--csv"], &["explain", "--last", "--json"]] {
            let (code, out, err) = run(folder, arguments);
            assert_eq!(code, expected, "{arguments:?}: {err}");
            assert!(out.contains("kkkkkkkkkkkk1") && !out.contains("a.journal"), "{arguments:?}: {out}");
            assert_eq!(err.contains(WARNING), expected == Some(3), "{arguments:?}: {err}");
            assert_eq!(
                err.matches("a.journal").count(),
                usize::from(expected == Some(3)),
                "said once: {err}"
            );
        }
    }
}

#[test]
fn explain_distinguishes_a_missing_close_from_a_part_of_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (stderr, no_files, code, said) in [
        ("", false, 1, "no close of session \"nobody\""),
        (TRUNCATED, false, 3, "no close of session \"nobody\""),
        ("", true, 1, "no journal files in /copied"),
    ] {
        journalctl(folder, b"", stderr, no_files);
        let (status, out, err) = run(folder, &["explain", "nobody"]);
        assert_eq!((status, out.as_str()), (Some(code), ""), "{err}");
        assert!(err.contains(said), "{err}");
        assert_eq!(err.contains("could not be read"), code == 3, "{err}");
    }
}
