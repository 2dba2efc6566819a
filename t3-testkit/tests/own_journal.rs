//! Private journald: a record reads back as it was written, and only from processes in its mount
//! namespace.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{process::Command, time::Duration};

use t3_record::{
    Cause, CloseRecord, KernelSource, Segment, Verdict,
    journal::{CLOSE_ID, datagram},
};
use t3_testkit::{journald::Journal, prerequisite};

fn record(user: &str) -> CloseRecord {
    let mut record = CloseRecord::new(
        user.to_owned(),
        "203.0.113.9".to_owned(),
        7,
        Cause::Graceful,
        Verdict::ClientClosed,
        Segment::Downstream,
        "c1".to_owned(),
        KernelSource::Off,
    );
    record.ws_reason = Some("two\nlines = \"quoted\"".to_owned());
    record
}

/// Sends from a separate process, because only a child can enter the namespace.
fn send(journal: Option<&Journal>, record: &CloseRecord) {
    let fields = record.to_fields();
    let bytes = datagram(fields.iter().map(|(name, value)| (name.as_ref(), value.as_str())));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let mut sender = Command::new(std::env::current_exe().unwrap());
    sender.env("T3_SEND", file.path()).args(["--exact", "helper_that_sends_one_datagram", "--nocapture"]);
    if let Some(journal) = journal {
        journal.lend(&mut sender).unwrap();
    }
    sender.output().unwrap();
}

#[test]
fn helper_that_sends_one_datagram() {
    // Does nothing except in the child of the test below.
    if let Some(path) = std::env::var_os("T3_SEND") {
        let bytes = std::fs::read(path).unwrap();
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let _ = socket.send_to(&bytes, "/run/systemd/journal/socket");
    }
}

#[test]
fn only_records_from_inside_the_namespace_are_read_back() {
    if prerequisite::or_skip("only_records_from_inside_the_namespace_are_read_back", prerequisite::root())
        .is_none()
    {
        return;
    }
    let journal = Journal::private().unwrap();
    send(None, &record("outside"));
    send(Some(&journal), &record("inside"));
    let found = journal.wait_closes(1, Duration::from_secs(20), |_| true).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, record("inside"));
    assert_eq!(found[0].1["MESSAGE_ID"], CLOSE_ID);
    assert_eq!(found[0].1["MESSAGE"], record("inside").to_line());
    let dir = journal.directory().unwrap();
    drop(journal);
    assert!(!dir.exists(), "its files must be removed with it");
}
