//! A journal with many full records, for tests of its readers.

use std::{fmt::Write, fs, os::unix::net::UnixDatagram, path::Path, process::Command, time::Duration};

use t3_record::{
    CloseRecord, OpenRecord, Verdict,
    journal::{CLOSE_ID, OPEN_ID, field},
    record::Key,
};
use t3_testkit::journald::Journal;

/// Sends records to a private journald.
pub struct Records {
    journald: UnixDatagram,
    open: Template,
    close: Template,
}

impl Records {
    pub fn to(journal: &Journal) -> Self {
        let journald = UnixDatagram::unbound().unwrap();
        let directory = journal.directory().unwrap();
        journald.connect(directory.ancestors().nth(2).unwrap().join("systemd/journal/socket")).unwrap();
        let open = Template::new(OPEN_ID, "ws open", OpenRecord::KEYS);
        let close = Template::new(CLOSE_ID, "ws close", CloseRecord::KEYS);
        Self { journald, open, close }
    }

    pub fn open(&self, n: u64) {
        self.open.send(&self.journald, n, Verdict::ClientClosed);
    }

    pub fn close(&self, n: u64, verdict: Verdict) {
        self.close.send(&self.journald, n, verdict);
    }
}

/// An entry of the native protocol with gaps for values that differ between records. Encoding each
/// record would take longer than the measured reads.
struct Template {
    /// Alternating text and key names.
    parts: Vec<String>,
}

/// Delimiter of a key name that is replaced with a value.
const GAP: char = '\u{1}';

impl Template {
    fn new(id: &str, begin: &str, keys: &[Key]) -> Self {
        let varies = |key: &str| {
            let named = ["user", "verdict", "conn", "ray", "dur_ms", "up_bytes", "down_bytes", "mem_current"];
            named.contains(&key) || key.ends_with("_idle_ms") || key.contains("psi")
        };
        let value = |key: &Key| match varies(key.name) {
            true => format!("{GAP}{}{GAP}", key.name),
            false => key.example.to_owned(),
        };
        // Few records are reconciled.
        let keys = keys.iter().filter(|key| !["reconciled", "ended_at"].contains(&key.name));
        let pairs: Vec<(&str, String)> = keys.map(|key| (key.name, value(key))).collect();
        let line: String = pairs.iter().map(|(key, value)| format!(" {key}={value}")).collect();
        let mut text = format!("MESSAGE={begin}{line}\nMESSAGE_ID={id}\nSYSLOG_IDENTIFIER=t3-dispatch\n");
        text.extend(pairs.iter().map(|(key, value)| format!("{}={value}\n", field(key))));
        Self { parts: text.split(GAP).map(str::to_owned).collect() }
    }

    fn send(&self, journald: &UnixDatagram, n: u64, verdict: Verdict) {
        let mut text = String::with_capacity(4096);
        for (place, part) in self.parts.iter().enumerate() {
            let _ = match part.as_str() {
                _ if place % 2 == 0 => write!(text, "{part}"),
                "user" => write!(text, "user{}", n % 23),
                "verdict" => write!(text, "{verdict}"),
                "conn" | "ray" => text.write_str(&conn(n)),
                key if key.contains("psi") => write!(text, "{}.{}", n % 100, n % 10),
                _ => write!(text, "{}", n * 7919 % 86_400_000),
            };
        }
        journald.send(text.as_bytes()).unwrap();
    }
}

/// Session id of the record with this number.
pub fn conn(n: u64) -> String {
    format!("k{n:012x}")
}

/// Waits until the journal has this record; journald keeps the order of records.
pub fn wait_for_record(directory: &Path, last: u64) {
    t3_testkit::wait::until("the last record in the journal", Duration::from_secs(120), || {
        let mut journalctl = Command::new("journalctl");
        journalctl.args(["--quiet", "--output=cat", &format!("T3_CONN={}", conn(last)), "--directory"]);
        let output = journalctl.arg(directory).output().unwrap();
        (!output.stdout.is_empty()).then_some(())
    })
    .unwrap();
}

/// Peak resident memory in KiB of a `/proc/PID/status`; `None` when the process has ended.
pub fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// CPU time of this process, and of its children that have ended.
pub fn cpu() -> [Duration; 2] {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let ticks = after_name.split_whitespace().skip(11).take(4).map(|n| n.parse().unwrap());
    let ticks: Vec<u64> = ticks.collect();
    // USER_HZ is 100 on every supported architecture.
    [ticks[0] + ticks[1], ticks[2] + ticks[3]].map(|ticks| Duration::from_millis(ticks * 10))
}
