//! `tcp close` records as they are written.

use std::{
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use t3_record::TcpCloseRecord;

const TIMEOUT: Duration = Duration::from_secs(60);

/// The next entry, which is such a record.
///
/// # Panics
/// If there is none within [`TIMEOUT`].
pub fn next(journald: &UnixDatagram) -> TcpCloseRecord {
    journald.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = vec![0; 65_536];
    let started = Instant::now();
    loop {
        if let Ok(length) = journald.recv(&mut buffer) {
            return parse(&buffer[..length]).unwrap();
        }
        assert!(started.elapsed() < TIMEOUT, "no record");
    }
}

/// The record of an entry.
pub fn parse(entry: &[u8]) -> Option<TcpCloseRecord> {
    let text = String::from_utf8_lossy(entry);
    let line = text.lines().find_map(|line| line.strip_prefix("MESSAGE="))?;
    TcpCloseRecord::from_line(line).ok()
}
