//! The private journald: what a record says must come back as it was written, from a process that
//! is in its namespace and from no other.

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

/// Sends from a process of its own, because only a child can be put into the namespace.
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
    // Does nothing unless it is the child of the test below.
    if let Some(path) = std::env::var_os("T3_SEND") {
        let bytes = std::fs::read(path).unwrap();
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let _ = socket.send_to(&bytes, "/run/systemd/journal/socket");
    }
}

#[test]
fn a_record_reads_back_from_inside_and_never_from_outside() {
    if prerequisite::or_skip("a_record_reads_back_from_inside_and_never_from_outside", prerequisite::root())
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
    assert!(!dir.exists(), "its files went with it");
}
