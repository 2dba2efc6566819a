//! Cycles of open, upgrade and close, one after the other.
//!
//! The client ends the connection (FIN) and waits for the FIN of the other side, so that a cycle
//! ends when the proxy has closed its downstream leg.

use std::{
    io::{self, Read as _},
    net::Shutdown,
    time::Instant,
};

use super::{Load, Seen, nanoseconds, open::open, seen};
use crate::error::{Attempt, Result};

/// Runs `count` cycles.
pub(super) fn run(load: &Load, count: u64) -> Result<Seen> {
    let begin = Instant::now();
    let mut times = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    for index in 0..count {
        let since = Instant::now();
        cycle(load).attempt(|| format!("open and close session {index} at {}", load.address))?;
        times.push(nanoseconds(since.elapsed()));
    }
    Ok(seen(times, begin.elapsed()))
}

fn cycle(load: &Load) -> io::Result<()> {
    let mut stream = open(load.address, &load.target)?;
    stream.shutdown(Shutdown::Write)?;
    let mut scratch = [0; 512];
    loop {
        match stream.read(&mut scratch) {
            Ok(0) => return Ok(()),
            // A Close frame of the proxy.
            Ok(_) => {}
            // A proxy may also end with RST.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
