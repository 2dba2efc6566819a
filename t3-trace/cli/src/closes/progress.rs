//! How far the reading is, told on stderr once a second: nobody looks at a still screen for a
//! minute. Says nothing where it would get into a file, a pipe or a table.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use t3_trace_host::clock::realtime_secs;

use crate::time::local;

/// Progress is told this often, and not before.
const EVERY: Duration = Duration::from_secs(1);
/// The clock is looked at once in so many records.
const BETWEEN: u64 = 1024;

/// The telling.
#[derive(Debug)]
pub struct Progress {
    on: bool,
    read: u64,
    /// Of the first record, in microseconds since the epoch.
    first: Option<u64>,
    /// Where the reading will end, in the same.
    end: u64,
    told: Instant,
    shown: bool,
}

impl Progress {
    /// Nothing is read yet. `until`: where the reading will end, in microseconds since the epoch,
    /// if not now.
    #[must_use]
    pub fn new(until: Option<u64>, lines_on_stdout: bool) -> Self {
        let on = io::stderr().is_terminal() && !(lines_on_stdout && io::stdout().is_terminal());
        let now = realtime_secs().saturating_mul(1_000_000);
        let end = until.unwrap_or(now).min(now);
        Self { on, read: 0, first: None, end, told: Instant::now(), shown: false }
    }

    /// One more record, of this time.
    pub fn step(&mut self, micros: impl FnOnce() -> Option<u64>) {
        self.read += 1;
        if !self.on || !(self.read == 1 || self.read.is_multiple_of(BETWEEN)) {
            return;
        }
        let micros = micros().unwrap_or_default();
        let first = *self.first.get_or_insert(micros);
        if self.told.elapsed() >= EVERY {
            let _ = write!(io::stderr(), "\r\x1b[K{}", told(self.read, first, micros, self.end));
            self.told = Instant::now();
            self.shown = true;
        }
    }

    /// Takes it off the screen.
    pub fn end(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn told(read: u64, first: u64, at: u64, end: u64) -> String {
    let secs = at / 1_000_000;
    let percent = (at.saturating_sub(first).saturating_mul(100)).checked_div(end.saturating_sub(first));
    let percent = percent.map_or_else(String::new, |percent| format!(" ({}%)", percent.min(100)));
    format!("{read} records read, up to {} {}{percent}", local::day(secs), local::clock(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_how_many_up_to_when_and_how_much_of_all() {
        let day = 86_400_000_000;
        let text = told(2048, 10 * day, 13 * day, 20 * day);
        assert!(text.starts_with("2048 records read, up to 1970-01-") && text.ends_with(" (30%)"), "{text}");
        assert!(told(1, 5, 5, 5).ends_with(|c: char| c.is_ascii_digit()));
        assert!(told(1, 5, 9, 7).ends_with(" (100%)"));
    }
}
