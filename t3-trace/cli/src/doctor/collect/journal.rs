//! Facts of the journal: socket and limits of journald, access to its files, dropped entries.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

use super::{
    super::facts::{Access, Collected, Journal, Limit, Suppressed},
    command::run,
    units::span_us,
};
use crate::{doctor::checks::DISPATCH, journal::json_entry, time::local};

const SOCKET: &str = "/run/systemd/journal/socket";
/// MESSAGE_ID of reports about dropped entries (`SD_MESSAGE_JOURNAL_DROPPED`).
const DROPPED_ID: &str = "a596d6fe7bfa4994828e72309e95d61e";
/// Directories of journald.conf and its drop-ins; later ones override earlier ones (systemd's
/// precedence).
const DIRS: [&str; 4] = ["/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd"];

pub(super) fn read() -> Journal {
    let accepts = UnixDatagram::unbound().and_then(|socket| socket.connect(SOCKET));
    let kept = files("/var/log/journal");
    let volatile = files("/run/log/journal");
    Journal {
        accepts: accepts.map_err(|error| format!("{SOCKET}: {error}")),
        access: access(kept.iter().chain(&volatile)),
        persistent: !kept.is_empty() && volatile.is_empty(),
        limit: limit(),
        suppressed: suppressed(),
    }
}

/// Active files of the system journal.
fn files(root: &str) -> Vec<PathBuf> {
    let machines = fs::read_dir(root).into_iter().flatten().flatten();
    machines.map(|host| host.path().join("system.journal")).filter(|file| file.exists()).collect()
}

fn access<'a>(mut files: impl Iterator<Item = &'a PathBuf> + Clone) -> Access {
    match files.clone().next() {
        None => Access::NoFiles,
        Some(_) if files.any(|file| fs::File::open(file).is_ok()) => Access::Granted,
        Some(_) => Access::Denied,
    }
}

fn limit() -> Limit {
    let mut texts = Vec::new();
    if let Some(main) =
        DIRS.iter().rev().map(|dir| Path::new(dir).join("journald.conf")).find(|path| path.exists())
    {
        texts.push(main);
    }
    // Sorted by file name; a file of the same name in a later directory replaces it.
    let mut drop_ins = BTreeMap::new();
    for dir in DIRS {
        let folder = fs::read_dir(Path::new(dir).join("journald.conf.d")).into_iter().flatten().flatten();
        let files =
            folder.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "conf"));
        drop_ins.extend(files.map(|path| (path.file_name().map(ToOwned::to_owned), path)));
    }
    texts.extend(drop_ins.into_values());
    let read = texts
        .into_iter()
        .filter_map(|path| Some((path.display().to_string(), fs::read_to_string(path).ok()?)));
    merged(read)
}

/// The last file with a setting counts; the defaults are systemd's.
fn merged(files: impl Iterator<Item = (String, String)>) -> Limit {
    let mut limit = Limit { interval_us: 30_000_000, burst: 10_000, from: "journald's default".to_owned() };
    for (path, text) in files {
        let settings = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
        for (name, value) in settings.filter_map(|line| line.split_once('=')) {
            match (name.trim(), value.trim()) {
                ("RateLimitIntervalSec" | "RateLimitInterval", value) => {
                    limit.interval_us = span_us(value).unwrap_or(limit.interval_us);
                }
                ("RateLimitBurst", value) => limit.burst = value.parse().unwrap_or(limit.burst),
                _ => continue,
            }
            limit.from.clone_from(&path);
        }
    }
    limit
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

    fn limit_of(texts: &[&str]) -> (u64, u64, String) {
        let files = texts.iter().enumerate().map(|(n, text)| (n.to_string(), (*text).to_owned()));
        let limit = merged(files);
        (limit.interval_us, limit.burst, limit.from)
    }

    #[test]
    fn the_last_file_with_a_setting_counts() {
        let default = "journald's default".to_owned();
        assert_eq!(limit_of(&[]), (30_000_000, 10_000, default.clone()));
        assert_eq!(limit_of(&["[Journal]\n#RateLimitBurst=5\n;RateLimitBurst=6\n"]).2, default);
        assert_eq!(
            limit_of(&[
                "[Journal]\nRateLimitIntervalSec=1min\nRateLimitBurst = 500\n",
                "[Journal]\nRateLimitBurst=0\n"
            ]),
            (60_000_000, 0, "1".to_owned())
        );
        assert_eq!(limit_of(&["RateLimitBurst=many\nRateLimitInterval=1s"]).1, 10_000);
    }

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
