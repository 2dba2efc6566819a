//! Progress of a long read, on stderr once per second. Off where it would get into a file, a pipe
//! or a table.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use t3_trace_host::clock::realtime_secs;

use crate::time::local;

/// Interval of the output, and delay of the first one.
const EVERY: Duration = Duration::from_secs(1);
/// Records per check of the clock.
const BETWEEN: u64 = 1024;

/// State of the progress line.
#[derive(Debug)]
pub struct Progress {
    on: bool,
    read: u64,
    /// Time of the first record, in microseconds since the epoch.
    first: Option<u64>,
    /// End of the range, in microseconds since the epoch.
    end: u64,
    printed_at: Instant,
    shown: bool,
}

impl Progress {
    /// `until`: end of the range in microseconds since the epoch, if it is not now.
    #[must_use]
    pub fn new(until: Option<u64>, lines_on_stdout: bool) -> Self {
        let on = io::stderr().is_terminal() && !(lines_on_stdout && io::stdout().is_terminal());
        let now = realtime_secs().saturating_mul(1_000_000);
        let end = until.unwrap_or(now).min(now);
        Self { on, read: 0, first: None, end, printed_at: Instant::now(), shown: false }
    }

    /// Counts a record of this time.
    pub fn step(&mut self, micros: impl FnOnce() -> Option<u64>) {
        self.read += 1;
        if !self.on || !(self.read == 1 || self.read.is_multiple_of(BETWEEN)) {
            return;
        }
        let micros = micros().unwrap_or_default();
        let first = *self.first.get_or_insert(micros);
        if self.printed_at.elapsed() >= EVERY {
            let _ = write!(io::stderr(), "\r\x1b[K{}", line(self.read, first, micros, self.end));
            self.printed_at = Instant::now();
            self.shown = true;
        }
    }

    /// Clears the line.
    pub fn end(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(read: u64, first: u64, at: u64, end: u64) -> String {
    let secs = at / 1_000_000;
    let percent = (at.saturating_sub(first).saturating_mul(100)).checked_div(end.saturating_sub(first));
    let percent = percent.map_or_else(String::new, |percent| format!(" ({}%)", percent.min(100)));
    format!("{read} records read, up to {} {}{percent}", local::day(secs), local::clock(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_count_time_and_percentage() {
        let day = 86_400_000_000;
        let text = line(2048, 10 * day, 13 * day, 20 * day);
        assert!(text.starts_with("2048 records read, up to 1970-01-") && text.ends_with(" (30%)"), "{text}");
        assert!(line(1, 5, 5, 5).ends_with(|c: char| c.is_ascii_digit()));
        assert!(line(1, 5, 9, 7).ends_with(" (100%)"));
    }
}
