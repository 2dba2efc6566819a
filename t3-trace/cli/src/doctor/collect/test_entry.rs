//! Entry that `doctor` writes and searches for: whether journald keeps records.

use std::{
    fs::File,
    io::Read,
    os::unix::net::UnixDatagram,
    thread,
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use t3_record::journal::datagram;

use super::{
    super::facts::{Collected, TestEntry},
    command::run,
};

/// MESSAGE_ID of the entry.
const ID: &str = "5f0c8a1be2d74c6b9a3e7d1240b6f8c5";
/// Field with the random value.
const FIELD: &str = "T3_DOCTOR";
/// Size of a long `ws close`, in bytes: journald stores large fields differently.
const SIZE: usize = 2048;
/// Timeout for the entry to appear where journald cannot be asked to write everything.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Writes an entry to the socket and searches for it.
pub(super) fn try_one(socket: &str) -> TestEntry {
    match written(socket) {
        Err(why) => TestEntry::NotSent(why),
        Ok(value) => found(&value),
    }
}

/// Writes the entry; returns its random value.
fn written(socket: &str) -> Collected<String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut random = [0; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).map_err(failed)?;
    let value = HEXLOWER.encode(&random);
    let filler = "x".repeat(SIZE);
    // Priority and size of a record: journald may drop entries by both.
    let fields = [
        ("MESSAGE", "t3-trace doctor: test entry"),
        ("MESSAGE_ID", ID),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "t3-trace"),
        (FIELD, &value),
        ("T3_DOCTOR_FILLER", &filler),
    ];
    let sender = UnixDatagram::unbound().map_err(failed)?;
    // A full socket belongs to a journald that does not read.
    sender.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
    sender.send_to(&datagram(fields), socket).map_err(failed)?;
    Ok(value)
}

fn found(value: &str) -> TestEntry {
    let synced = run("journalctl", &["--sync"]);
    let term = format!("{FIELD}={value}");
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match run("journalctl", &["--quiet", "--no-pager", "--output=cat", "--lines=1", &term]) {
            Err(why) => return TestEntry::NotSearched(why),
            Ok(text) if !text.is_empty() => return TestEntry::Found,
            Ok(_) if synced.is_ok() => return TestEntry::Missing,
            Ok(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(100)),
            // Not synced and not found: journald may only be late.
            Ok(_) => return TestEntry::NotSearched(synced.err().unwrap_or_default()),
        }
    }
}
