//! Facts of the journal: socket and settings of journald, access to its files, dropped entries, a
//! test entry.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

use super::{
    super::facts::{Access, Caller, Collected, Journal, Space, Suppressed, TestEntry},
    command::run,
    journald_conf, test_entry,
};
use crate::{doctor::checks::DISPATCH, journal::json_entry, time::local};

const SOCKET: &str = "/run/systemd/journal/socket";
const PERSISTENT: &str = "/var/log/journal";
const VOLATILE: &str = "/run/log/journal";
/// MESSAGE_ID of reports about dropped entries (`SD_MESSAGE_JOURNAL_DROPPED`).
const DROPPED_ID: &str = "a596d6fe7bfa4994828e72309e95d61e";

pub(super) fn read(caller: Caller) -> Journal {
    let accepts = UnixDatagram::unbound().and_then(|socket| socket.connect(SOCKET));
    let kept = files(PERSISTENT);
    let volatile = files(VOLATILE);
    Journal {
        accepts: accepts.map_err(|error| format!("{SOCKET}: {error}")),
        access: access(kept.iter().chain(&volatile)),
        persistent: !kept.is_empty() && volatile.is_empty(),
        conf: journald_conf::read(),
        suppressed: suppressed(),
        space: [PERSISTENT, VOLATILE].into_iter().find_map(used).and_then(|folder| space(&folder)),
        // Any user may write entries; only root may find it in the journal for certain.
        test_entry: if caller.is_root() { test_entry::try_one(SOCKET) } else { TestEntry::NotRoot },
    }
}

/// Active files of the system journal.
fn files(root: &str) -> Vec<PathBuf> {
    let machines = fs::read_dir(root).into_iter().flatten().flatten();
    machines.map(|host| host.path().join("system.journal")).filter(|file| file.exists()).collect()
}

/// Folder of a machine with journal files. On a full disk there may be only archived ones.
fn used(root: &str) -> Option<PathBuf> {
    let is_journal = |file: fs::DirEntry| file.path().extension().is_some_and(|end| end == "journal");
    let has_files = |folder: &PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().any(is_journal);
    fs::read_dir(root).ok()?.flatten().map(|machine| machine.path()).find(has_files)
}

/// Free space for root of the file system of a directory.
fn space(path: &Path) -> Option<Space> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(Space {
        path: path.to_owned(),
        free: found.f_bfree.saturating_mul(found.f_frsize),
        read_only: found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

fn access<'a>(mut files: impl Iterator<Item = &'a PathBuf> + Clone) -> Access {
    match files.clone().next() {
        None => Access::NoFiles,
        Some(_) if files.any(|file| fs::File::open(file).is_ok()) => Access::Granted,
        Some(_) => Access::Denied,
    }
}

fn suppressed() -> Collected<Vec<Suppressed>> {
    let id = format!("MESSAGE_ID={DROPPED_ID}");
    let text = run(
        "journalctl",
        &["--quiet", "--no-pager", "--output=json", "--since=-7d", "_TRANSPORT=driver", &id],
    )?;
    Ok(text.lines().filter_map(dropped).collect())
}

/// Parses `Suppressed 17 messages from t3-dispatch.service`. Entries of journald have the transport
/// `driver`, which clients cannot set.
fn dropped(line: &str) -> Option<Suppressed> {
    let fields = json_entry::fields(line)?;
    let message = fields.get("MESSAGE")?;
    let (_, unit) = message.rsplit_once(' ')?;
    if ![DISPATCH, super::TRACE].contains(&unit) {
        return None;
    }
    let in_message = || message.split(' ').find_map(|word| word.parse().ok());
    let entries = fields.get("N_DROPPED").and_then(|number| number.parse().ok()).or_else(in_message)?;
    let micros: Option<u64> = fields.get("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse().ok());
    let secs = micros? / 1_000_000;
    let at = format!("{} {}", local::day(secs), local::clock(secs));
    Some(Suppressed { unit: unit.to_owned(), entries, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dropped_entries_of_the_two_units_count() {
        let line = |message: &str, more: &str| {
            format!(r#"{{"__REALTIME_TIMESTAMP":"1700000000000000","MESSAGE":"{message}"{more}}}"#)
        };
        let found = dropped(&line("Suppressed 17 messages from t3-dispatch.service", "")).unwrap();
        assert_eq!((found.unit.as_str(), found.entries), (DISPATCH, 17));
        let found =
            dropped(&line("Suppressed 17 messages from t3-trace.service", r#","N_DROPPED":"18""#)).unwrap();
        assert_eq!(found.entries, 18);
        for other in [
            "Suppressed 17 messages from cron.service",
            "Suppressed 17 messages from x-t3-dispatch.service",
            "",
        ] {
            assert_eq!(dropped(&line(other, "")), None, "{other}");
        }
        assert_eq!(dropped("garbage"), None);
    }

    #[test]
    fn unreadable_files_are_distinguished_from_missing_ones() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("system.journal");
        assert_eq!(access([].iter()), Access::NoFiles);
        assert_eq!(access([file.clone()].iter()), Access::Denied);
        fs::write(&file, "").unwrap();
        assert_eq!(access([file].iter()), Access::Granted);
    }
}
