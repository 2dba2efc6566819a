//! Changes of the host between closes: starts and failures of the units, reboots, packages. Only
//! what a log states, at the time that it has.
//!
//! They are read before the closes and then put between them. Only a table has them.

pub mod dpkg;

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::Path,
};

use super::args::ClosesArgs;
use crate::{
    journal::export_format::Entry,
    store::{Query, Want, starts},
};

/// Limit of changes kept, the last ones.
const KEPT: usize = 10_000;
/// Limit of lines between two closes, the last ones.
const BETWEEN: usize = 8;
/// Limit of hosts whose boot is known.
const HOSTS: usize = 1_000;

/// A line between two closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Microseconds since the epoch.
    pub at: u64,
    pub host: Option<String>,
    pub text: String,
}

/// Changes to be listed, the earliest first, and the boot of each host.
#[derive(Debug, Default)]
pub struct Changes {
    /// Each with the boot in which it was logged, if known.
    waiting: VecDeque<(Change, Option<String>)>,
    /// Changes above the limit, not yet reported.
    skipped: usize,
    boots: HashMap<String, String>,
}

/// Returns the query for the messages of systemd.
#[must_use]
pub fn query(args: &ClosesArgs) -> Query {
    let wanted = vec![Want::Starts(units(args))];
    Query { since: args.since, until: args.until(), wanted, often_empty: true, ..Query::default() }
}

/// Units whose starts are listed: with `--user` only serve of this user.
fn units(args: &ClosesArgs) -> Vec<String> {
    let serve = args.user.as_ref().map_or("t3-serve@".to_owned(), |user| format!("t3-serve@{user}.service"));
    vec!["t3-dispatch.service".to_owned(), "t3-trace.service".to_owned(), serve]
}

/// Returns the change in an entry of [`query`], and the boot in which it was logged.
#[must_use]
pub fn of_entry(args: &ClosesArgs, entry: &Entry) -> Option<(Change, Option<String>)> {
    let text = entry.get("MESSAGE")?;
    // Loki has only the text.
    let is_wanted = match entry.get("UNIT") {
        Some(unit) => starts::is_one(&units(args), unit),
        None => starts::is_start(&units(args), text),
    };
    let change = Change { at: entry.micros()?, host: entry.host().map(str::to_owned), text: text.to_owned() };
    is_wanted.then(|| (change, boot(entry).map(str::to_owned)))
}

/// Boot in which an entry was logged; only a journal has it.
#[must_use]
pub fn boot(entry: &Entry) -> Option<&str> {
    entry.get("_BOOT_ID")
}

/// Reads the changes of our packages in the range of the options.
///
/// # Errors
/// The log exists and cannot be read.
pub fn packages(args: &ClosesArgs, log: &Path) -> io::Result<Vec<Change>> {
    let ms = |micros: u64| i64::try_from(micros / 1000).unwrap_or(i64::MAX);
    let since = args.since.map_or(0, |since| ms(since.epoch_micros()));
    let until = args.until().map_or(i64::MAX, |until| ms(until.epoch_micros()));
    let read = dpkg::read(log, (since, until), |change| change.is_ours())?;
    let change = |(at_ms, change): (i64, dpkg::Change)| Change {
        at: u64::try_from(at_ms).unwrap_or(0).saturating_mul(1000),
        host: None,
        text: change.to_string(),
    };
    Ok(read.into_iter().map(change).collect())
}

impl Changes {
    /// Keeps a change and its boot.
    pub fn keep(&mut self, change: Change, boot: Option<String>) {
        self.waiting.push_back((change, boot));
        if self.waiting.len() > KEPT {
            self.waiting.pop_front();
            self.skipped += 1;
        }
    }

    /// Sorts the changes after the last one.
    pub fn sort(&mut self) {
        self.waiting.make_contiguous().sort_by_key(|(change, _)| change.at);
    }

    /// Removes and returns the changes before a close at a time in microseconds since the epoch, on
    /// a host, in a boot.
    pub fn before(&mut self, at: u64, host: Option<&str>, boot: Option<&str>) -> Vec<Change> {
        let mut lines = self.up_to(at);
        lines.extend(self.reboot(at, host, boot));
        self.limited(lines)
    }

    /// Removes and returns the changes after the last close.
    pub fn rest(&mut self) -> Vec<Change> {
        let lines = self.up_to(u64::MAX);
        self.limited(lines)
    }

    fn up_to(&mut self, at: u64) -> Vec<Change> {
        let mut lines = Vec::new();
        while self.waiting.front().is_some_and(|(change, _)| change.at <= at)
            && let Some((change, boot)) = self.waiting.pop_front()
        {
            lines.extend(self.reboot(change.at, change.host.as_deref(), boot.as_deref()));
            lines.push(change);
        }
        lines
    }

    /// Notes the boot of an entry; a change if the host's entry before it was of another one.
    fn reboot(&mut self, at: u64, host: Option<&str>, boot: Option<&str>) -> Option<Change> {
        let boot = boot?;
        let name = host.unwrap_or_default();
        if let Some(last) = self.boots.get_mut(name) {
            if last == boot {
                return None;
            }
            boot.clone_into(last);
            let text = "the host has rebooted".to_owned();
            return Some(Change { at, host: host.map(str::to_owned), text });
        }
        if self.boots.len() < HOSTS {
            self.boots.insert(name.to_owned(), boot.to_owned());
        }
        None
    }

    fn limited(&mut self, mut lines: Vec<Change>) -> Vec<Change> {
        let above = lines.len().saturating_sub(BETWEEN);
        let more = std::mem::take(&mut self.skipped) + above;
        lines.drain(..above);
        if let Some(first) = lines.first().filter(|_| more > 0) {
            let text = format!("{} before these", crate::present::units::count(more as u64, "change"));
            lines.insert(0, Change { at: first.at, host: None, text });
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(at: u64, text: &str) -> Change {
        Change { at, host: None, text: text.to_owned() }
    }

    fn texts(changes: Vec<Change>) -> Vec<(u64, String)> {
        changes.into_iter().map(|change| (change.at, change.text)).collect()
    }

    fn line(at: u64, text: &str) -> (u64, String) {
        (at, text.to_owned())
    }

    #[test]
    fn changes_come_before_the_first_close_after_them() {
        let mut changes = Changes::default();
        for (at, text) in [(30, "c"), (10, "a"), (20, "b")] {
            changes.keep(change(at, text), None);
        }
        changes.sort();
        assert_eq!(texts(changes.before(20, None, None)), [line(10, "a"), line(20, "b")]);
        assert_eq!(texts(changes.before(25, None, None)), []);
        assert_eq!(texts(changes.rest()), [line(30, "c")]);
        assert_eq!(texts(changes.rest()), []);
    }

    #[test]
    fn another_boot_of_the_same_host_is_a_reboot_at_its_first_entry() {
        let mut changes = Changes::default();
        changes.keep(change(50, "Started t3-trace.service"), Some("b".to_owned()));
        assert_eq!(changes.before(10, None, Some("a")), [], "the first");
        assert_eq!(changes.before(11, None, None), [], "unknown");
        assert_eq!(changes.before(12, Some("other"), Some("b")), [], "of another host");
        let reboot = "the host has rebooted";
        let expected = [line(50, reboot), line(50, "Started t3-trace.service")];
        assert_eq!(texts(changes.before(60, None, Some("b"))), expected);
        assert_eq!(texts(changes.before(70, None, Some("c"))), [line(70, reboot)], "without a message");
    }

    #[test]
    fn many_changes_are_counted() {
        let mut changes = Changes::default();
        let all = KEPT + 5;
        for n in 0..all {
            changes.keep(change(n as u64, "x"), None);
        }
        changes.sort();
        let shown = texts(changes.before(1_000, None, None));
        assert_eq!(shown.len(), BETWEEN + 1);
        assert_eq!(shown[0], line(993, "993 changes before these"));
        assert_eq!(texts(changes.rest()).len(), BETWEEN + 1);
    }

    #[test]
    fn only_our_units_and_packages_are_changes() {
        let of = |user: Option<&str>, unit: &str| {
            let mut entry = Entry::default();
            for (name, value) in
                [("__REALTIME_TIMESTAMP", "7"), ("UNIT", unit), ("MESSAGE", "Started it."), ("_BOOT_ID", "b")]
            {
                entry.add(name, value);
            }
            of_entry(&ClosesArgs { user: user.map(str::to_owned), ..ClosesArgs::default() }, &entry)
        };
        let expected = Some((change(7, "Started it."), Some("b".to_owned())));
        assert_eq!(of(None, "t3-serve@bob.service"), expected);
        assert_eq!(of(Some("ann"), "t3-dispatch.service"), expected);
        assert_eq!(of(Some("ann"), "t3-serve@bob.service"), None);
        assert_eq!(of(None, "cron.service"), None);
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("dpkg.log");
        let text = "2026-07-27 14:10:07 upgrade t3-dispatch:amd64 0.1.0 0.1.1\n2026-07-27 14:10:08 upgrade tzdata:all 1 2\n";
        std::fs::write(&log, text).unwrap();
        let read = packages(&ClosesArgs::default(), &log).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].text, "upgrade of t3-dispatch:amd64 from 0.1.0 to 0.1.1");
    }
}
