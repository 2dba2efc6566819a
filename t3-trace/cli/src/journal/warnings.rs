//! Warnings of journalctl: which parts of a journal it could not read. Pure, except for the reader.
//!
//! journalctl ignores files and entries that it cannot read, exits with 0, and mentions only one
//! file per cause. Its debug messages have all of them, with the priority in front of each line.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
};

use crate::present::text::safe;

/// Environment of journalctl: messages of every priority, with it, in English.
pub const ENVIRONMENT: [(&str, &str); 4] = [
    ("SYSTEMD_LOG_LEVEL", "debug"),
    ("SYSTEMD_LOG_TARGET", "console-prefixed"),
    ("SYSTEMD_LOG_COLOR", "0"),
    ("LC_ALL", "C"),
];
/// Limit of lines kept; further ones are counted.
const KEPT: usize = 8;
/// Limit of a line in characters.
const LONGEST: usize = 240;
/// Limit of a line read, in bytes.
const LINE: u64 = 4096;
/// Lowest priority that is always a warning.
const WARNING: u8 = 4;
/// Debug messages about entries that are skipped.
const SKIPPED: [&str; 3] =
    ["bad, skipping over it", "Skipping message we can't read", "Can't iterate through"];
/// Debug message about a file that is skipped.
const NOT_OPENED: &str = "Failed to open journal file ";

/// Warnings of one or more runs of journalctl, each once, in the order of their arrival.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings {
    lines: Vec<String>,
    /// Number of further lines.
    more: u64,
    /// Entries that were skipped.
    skipped: u64,
    /// The first message about one.
    first_skipped: Option<String>,
    /// They are of Loki.
    of_loki: bool,
    /// Files that were not opened, with the cause: of one file there are two messages.
    files: BTreeMap<String, String>,
}

impl Warnings {
    /// Reads the messages of a run to their end.
    pub fn read(stderr: impl Read) -> Self {
        let mut found = Self::default();
        let mut input = BufReader::new(stderr);
        let mut line = Vec::new();
        while matches!(input.by_ref().take(LINE).read_until(b'\n', &mut line), Ok(1..)) {
            if line.last() != Some(&b'\n') && line.len() as u64 == LINE && input.skip_until(b'\n').is_err() {
                break;
            }
            found.add(&String::from_utf8_lossy(&line));
            line.clear();
        }
        found
    }

    /// Warnings about an answer of Loki.
    #[must_use]
    pub fn of_loki(lines: impl IntoIterator<Item = String>) -> Self {
        let mut found = Self::default();
        lines.into_iter().for_each(|line| found.keep(safe(&line).chars().take(LONGEST).collect()));
        found.of_loki = !found.lines.is_empty();
        found
    }

    fn add(&mut self, line: &str) {
        // File names may have any characters.
        let line: String = safe(line.trim()).chars().take(LONGEST).collect();
        let (priority, text) = priority(&line);
        if let Some((file, cause)) = text.strip_prefix(NOT_OPENED).and_then(|text| text.rsplit_once(": ")) {
            // journald deleted it in the meantime, to limit the size of the journal.
            if cause != "No such file or directory" {
                self.files.insert(file.to_owned(), cause.to_owned());
            }
        } else if SKIPPED.iter().any(|message| text.contains(message)) {
            self.skipped += 1;
            self.first_skipped.get_or_insert_with(|| text.to_owned());
        } else if priority <= WARNING && !text.is_empty() {
            self.keep(text.to_owned());
        }
    }

    fn keep(&mut self, line: String) {
        if self.lines.contains(&line) {
            return;
        }
        if self.lines.len() < KEPT {
            self.lines.push(line);
        } else {
            self.more += 1;
        }
    }

    /// Adds the warnings of another run on the same journal.
    pub fn merge(&mut self, other: Self) {
        other.lines.into_iter().for_each(|line| self.keep(line));
        self.more += other.more;
        self.of_loki |= other.of_loki;
        // Both runs may have met the same entries.
        self.skipped = self.skipped.max(other.skipped);
        self.first_skipped = self.first_skipped.take().or(other.first_skipped);
        self.files.extend(other.files);
    }

    /// Whether there are none: everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines().is_empty()
    }

    /// Prints the lines to stderr, and the consequence.
    pub fn print(&self, consequence: &str) {
        let mut stderr = io::stderr().lock();
        for line in self.lines() {
            let _ = writeln!(stderr, "{}: {line}", if self.of_loki { "Loki" } else { "journalctl" });
        }
        if !self.is_empty() {
            let _ = writeln!(stderr, "t3-trace: a part of the journal could not be read: {consequence}");
        }
    }

    /// Returns one line per warning, up to a limit, without control characters.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let opened = |line: &&String| !self.files.keys().any(|file| line.contains(file.as_str()));
        let mut lines: Vec<String> = self.lines.iter().filter(opened).cloned().collect();
        let files = self.files.iter().take(KEPT);
        lines.extend(files.map(|(file, cause)| format!("cannot open {file}: {}", explained(cause))));
        let more = self.more + (self.files.len().saturating_sub(KEPT)) as u64;
        if more > 0 {
            lines.push(format!("{more} more warnings"));
        }
        if let Some(first) = &self.first_skipped {
            lines.push(format!("{} damaged parts skipped; the first: {first}", self.skipped));
        }
        lines
    }
}

/// Splits `<28>text` into the priority of syslog(3) and the text. Text without it is an error of
/// the loader or of another program.
fn priority(line: &str) -> (u8, &str) {
    let parts = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    match parts.and_then(|(number, text)| Some((number.parse::<u8>().ok()? & 7, text))) {
        Some((priority, text)) => (priority, text.trim()),
        None => (0, line),
    }
}

/// Adds the meaning of an errno that journald uses in its own way.
fn explained(cause: &str) -> String {
    match cause {
        "No data available" => "the file is truncated".to_owned(),
        "Bad message" => "the file is damaged, or not a journal file".to_owned(),
        "Protocol not supported" => "the file needs a newer journalctl".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_skipped_file_is_a_warning_and_said_once() {
        let stderr = "<31>Considering root directory 'm'.
<31>Root directory m added.
<31>Failed to open journal file m/empty.journal: No data available
<31>Journal effective settings seal=no keyed_hash=yes compress=yes compress_threshold_bytes=8B
<31>File m/good.journal added.
<31>Failed to open journal file m/cut60.journal: No data available
<31>Failed to open journal file m/text.journal: Bad message
<31>Failed to open journal file m/vacuumed.journal: No such file or directory
<28>Journal file m/empty.journal is truncated, ignoring file.
<28>Journal file m/text.journal corrupted, ignoring file.
<31>Journal filter: none
<31>mmap cache statistics: 1 context cache hit, 1 window list hit, 5 miss
";
        let expected = [
            "cannot open m/cut60.journal: the file is truncated",
            "cannot open m/empty.journal: the file is truncated",
            "cannot open m/text.journal: the file is damaged, or not a journal file",
        ];
        let mut warnings = Warnings::read(stderr.as_bytes());
        assert_eq!(warnings.lines(), expected);
        warnings.merge(Warnings::read(stderr.as_bytes()));
        assert_eq!(warnings.lines(), expected);
    }

    #[test]
    fn messages_of_a_complete_read_are_not_warnings() {
        let stderr = "<31>File good.journal added.\n<30>x\n<29>No journal files were found.\n\n";
        assert!(Warnings::read(stderr.as_bytes()).is_empty());
        assert!(Warnings::read(&b""[..]).is_empty());
    }

    #[test]
    fn damaged_entries_are_counted_in_one_line() {
        let stderr = "<31>Attempt to move to object of unexpected type: 6388448
<31>Entry item 1581 is bad, skipping over it.
<31>Entry item 17 data object is bad, skipping over it: Bad message
";
        let expected = "2 damaged parts skipped; the first: Entry item 1581 is bad, skipping over it.";
        assert_eq!(Warnings::read(stderr.as_bytes()).lines(), [expected]);
    }

    #[test]
    fn outside_text_is_limited_and_has_no_control_characters() {
        let mut stderr = b"<27>a\x1b[2Jb\xff\nno priority\n<28>".to_vec();
        stderr.extend(vec![b'x'; 100_000]);
        stderr.push(b'\n');
        stderr.extend((0..100).flat_map(|n| format!("<28>line {n}\n").into_bytes()));
        let lines = Warnings::read(&stderr[..]).lines();
        assert_eq!(lines.len(), KEPT + 1);
        assert_eq!(&lines[..2], ["a\u{fffd}[2Jb\u{fffd}", "no priority"]);
        assert!(lines[2].len() <= LONGEST && lines[2].ends_with('x'), "{}", lines[2]);
        assert_eq!(lines[3], "line 0", "the rest of a long line is not another line");
        assert_eq!(lines[KEPT], "95 more warnings");
    }
}
