//! Reads a journal as a stream: tens of thousands of records, only the required keys.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use t3_record::{
    CloseRecord, OpenRecord,
    journal::{CLOSE_ID, OPEN_ID, field},
};

use crate::{
    error::{Attempt, Result, TestError},
    journald::Journal,
};

/// Keys of a `ws close` that no plan has an opinion on are not read: half the time would go there.
const KEYS: &[&str] = &[
    "user",
    "ip",
    "dur_ms",
    "cause",
    "verdict",
    "segment",
    "conn",
    "kernel",
    "how",
    "closed_by",
    "confidence",
    "down_end",
    "up_end",
    "ws_code",
    "ws_from",
    "up_msgs",
    "down_msgs",
    "peer_pid",
    "peer_exit",
    "ray",
    "lost",
    "chain",
    "reconciled",
    "ended_at",
];

/// One `ws close` entry of the journal.
#[derive(Debug, Clone)]
pub(crate) struct Close {
    pub record: CloseRecord,
    /// Time at which journald received it, in nanoseconds of `CLOCK_MONOTONIC`.
    pub taken: u64,
    /// Process that wrote it.
    pub pid: u32,
}

/// All records of a journal.
#[derive(Debug, Default)]
pub(crate) struct JournalReader {
    /// `ws close` records by `Cf-Ray`.
    pub closes: HashMap<String, Vec<Close>>,
    /// Session ids of the `ws open` records by `Cf-Ray`.
    pub opens: HashMap<String, Vec<String>>,
    /// Number of `ws open` and `ws close` records.
    pub lines: (usize, usize),
    /// Duration of the reading.
    pub took: Duration,
}

impl JournalReader {
    /// Reads a private journal after `journalctl --sync`.
    pub(crate) fn read(journal: &Journal) -> Result<Self> {
        let began = Instant::now();
        let mut sync = Command::new("journalctl");
        sync.arg("--sync").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        journal.lend(&mut sync)?;
        sync.status().attempt(|| "run journalctl --sync".to_owned())?;
        let directory = journal.directory().ok_or_else(|| TestError::Missing {
            what: "a private journal".to_owned(),
            remedy: "run as root, with systemd-journald installed".to_owned(),
        })?;
        let fields =
            ["MESSAGE_ID", "_PID"].map(str::to_owned).into_iter().chain(KEYS.iter().map(|key| field(key)));
        let mut journalctl = Command::new("journalctl");
        journalctl.arg(format!("--directory={}", directory.display()));
        journalctl.args(["--quiet", "--no-pager", "--all", "--output=json"]);
        journalctl.arg(format!("--output-fields={}", fields.collect::<Vec<_>>().join(",")));
        journalctl.args([CLOSE_ID, OPEN_ID].map(|id| format!("MESSAGE_ID={id}")));
        journalctl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let what = || "read the journal with journalctl".to_owned();
        let mut child = journalctl.spawn().attempt(what)?;
        let mut reader = Self::default();
        let outcome = match child.stdout.take() {
            Some(stdout) => {
                BufReader::new(stdout).lines().try_for_each(|line| reader.add(&line.attempt(what)?))
            }
            None => Ok(()),
        };
        let _ = child.kill();
        let _ = child.wait();
        reader.took = began.elapsed();
        outcome.map(|()| reader)
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let bad = |why: String| TestError::Unexpected { what: format!("a record in {line}"), got: why };
        let entry: BTreeMap<String, String> =
            serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
        let number = |name: &str| entry.get(name).and_then(|text| text.parse::<u64>().ok());
        if entry.get("MESSAGE_ID").is_some_and(|id| id == OPEN_ID) {
            let record = OpenRecord::from_fields(&entry).map_err(|error| bad(error.to_string()))?;
            self.opens.entry(record.ray.unwrap_or_default()).or_default().push(record.conn);
            self.lines.0 += 1;
            return Ok(());
        }
        let record = CloseRecord::from_fields(&entry).map_err(|error| bad(error.to_string()))?;
        let taken = number("__MONOTONIC_TIMESTAMP").unwrap_or(0) * 1_000;
        let pid = number("_PID").and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        let ray = record.ray.clone().unwrap_or_default();
        self.closes.entry(ray).or_default().push(Close { record, taken, pid });
        self.lines.1 += 1;
        Ok(())
    }
}
