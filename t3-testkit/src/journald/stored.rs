//! Records in the files of a journal, read with journalctl. Unlike a follower this misses nothing
//! when journald ends, and a second reading starts after the first.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use t3_record::journal::{CLOSE_ID, OPEN_ID, field};

use super::{Entry, Journal, entry};
use crate::error::{Attempt, Result};

/// Keys that are read.
const KEYS: [&str; 12] = [
    "conn",
    "dur_ms",
    "user",
    "ip",
    "ray",
    "verdict",
    "how",
    "confidence",
    "reconciled",
    "ended_at",
    "pause_ms",
    "self_lag_ms",
];

/// One `ws open` or `ws close`, only its identity and conclusion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredRecord {
    /// Session id.
    pub conn: String,
    /// The `Cf-Ray` header.
    pub ray: String,
    /// Process that wrote it.
    pub pid: u32,
    /// The other keys that the record has.
    pub keys: BTreeMap<&'static str, String>,
}

impl StoredRecord {
    /// The value of a key; empty without it.
    #[must_use]
    pub fn key(&self, key: &str) -> &str {
        self.keys.get(key).map_or("", String::as_str)
    }

    fn from_entry(entry: &Entry) -> Self {
        let value = |key: &str| entry.get(&field(key)).cloned();
        let keys = KEYS.iter().filter_map(|key| Some((*key, value(key)?)));
        Self {
            conn: value("conn").unwrap_or_default(),
            ray: value("ray").unwrap_or_default(),
            pid: entry.get("_PID").and_then(|pid| pid.parse().ok()).unwrap_or(0),
            keys: keys.collect(),
        }
    }
}

/// All `ws open` and `ws close` entries read so far.
#[derive(Debug)]
pub struct Stored {
    directory: Option<PathBuf>,
    cursor: Option<String>,
    pub opens: Vec<StoredRecord>,
    pub closes: Vec<StoredRecord>,
}

impl Stored {
    /// Of this journal, from its beginning; nothing is read yet.
    #[must_use]
    pub fn new(journal: &Journal) -> Self {
        Self { directory: journal.directory(), cursor: None, opens: Vec::new(), closes: Vec::new() }
    }

    /// Of the host, all boots.
    #[must_use]
    pub fn of_host() -> Self {
        Self { directory: None, cursor: None, opens: Vec::new(), closes: Vec::new() }
    }

    /// Reads the entries since the last call.
    pub fn read(&mut self) -> Result<()> {
        let mut journalctl = Command::new("journalctl");
        if let Some(directory) = &self.directory {
            journalctl.arg(format!("--directory={}", directory.display()));
        }
        journalctl.args(["--quiet", "--no-pager", "--all", "--output=json"]);
        let fields = ["MESSAGE_ID", "_PID"].map(str::to_owned).into_iter();
        let fields: Vec<_> = fields.chain(KEYS.iter().map(|key| field(key))).collect();
        journalctl.arg(format!("--output-fields={}", fields.join(",")));
        if let Some(cursor) = &self.cursor {
            journalctl.arg(format!("--after-cursor={cursor}"));
        }
        journalctl.args([CLOSE_ID, OPEN_ID].map(|id| format!("MESSAGE_ID={id}")));
        journalctl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let what = || "read the journal with journalctl".to_owned();
        let mut child = journalctl.spawn().attempt(what)?;
        let lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        for line in lines.into_iter().flatten() {
            let Some(entry) = entry(&line.attempt(what)?) else { continue };
            let record = StoredRecord::from_entry(&entry);
            let is_open = entry.get("MESSAGE_ID").is_some_and(|id| id == OPEN_ID);
            let records = if is_open { &mut self.opens } else { &mut self.closes };
            records.push(record);
            self.cursor = entry.get("__CURSOR").cloned().or(self.cursor.take());
        }
        child.wait().attempt(what).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_its_identity_and_the_keys_of_its_entry() {
        let line = r#"{"MESSAGE_ID":"x","_PID":"7","T3_CONN":"c1","T3_RAY":"r1","T3_VERDICT":"unknown","T3_DUR_MS":"5"}"#;
        let record = StoredRecord::from_entry(&entry(line).unwrap());
        assert_eq!((record.conn.as_str(), record.ray.as_str(), record.pid), ("c1", "r1", 7));
        assert_eq!(
            (record.key("verdict"), record.key("reconciled"), record.key("dur_ms")),
            ("unknown", "", "5")
        );
    }
}
