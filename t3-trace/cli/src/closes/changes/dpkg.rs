//! Package changes in the log of dpkg (dpkg(1), `--log`): the end of the file, in the time zone of
//! the system.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use jiff::{civil::DateTime, tz::TimeZone};

/// Log of dpkg on Debian.
pub const LOG: &str = "/var/log/dpkg.log";
/// Bytes read from its end.
const TAIL: u64 = 1 << 20;
/// Limit of changes kept.
const MOST: usize = 1_000;

/// Change of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `install`, `upgrade`, `remove` or `purge`.
    pub action: &'static str,
    /// Name, with the architecture.
    pub name: String,
    /// Version before.
    pub from: Option<String>,
    /// Version after.
    pub to: Option<String>,
}

impl Change {
    /// Whether the package is one of this project, or serve's.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let name = self.name.split(':').next().unwrap_or_default();
        name == "t3" || name.starts_with("t3-")
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.action, self.name)?;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, " from {from} to {to}"),
            (None, Some(version)) | (Some(version), None) => write!(f, " {version}"),
            (None, None) => Ok(()),
        }
    }
}

/// Reads the wanted changes in a range, each with its time, in milliseconds since the epoch. A host
/// without dpkg has none.
///
/// # Errors
/// The file exists and cannot be read.
pub fn read(
    path: &Path,
    range: (i64, i64),
    is_wanted: impl Fn(&Change) -> bool,
) -> io::Result<Vec<(i64, Change)>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut text = Vec::new();
    file.take(TAIL).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let all = changes(&text, range, TimeZone::system());
    Ok(all.filter(|(_, change)| is_wanted(change)).take(MOST).collect())
}

/// Parses the lines; the first one may be incomplete.
fn changes(text: &str, (from, until): (i64, i64), zone: TimeZone) -> impl Iterator<Item = (i64, Change)> {
    let parsed = text.lines().filter_map(move |line| parse(line, &zone));
    parsed.filter(move |change| (from..=until).contains(&change.0))
}

/// `2026-07-27 14:10:07 upgrade t3-dispatch:amd64 0.1.0 0.1.1`; other lines are `None`.
fn parse(line: &str, zone: &TimeZone) -> Option<(i64, Change)> {
    let mut words = line.split(' ');
    let time = format!("{} {}", words.next()?, words.next()?);
    let action = match words.next()? {
        "install" => "install",
        "upgrade" => "upgrade",
        "remove" => "remove",
        "purge" => "purge",
        _ => return None,
    };
    let name = words.next()?.to_owned();
    let mut version = || Some(words.next()?.to_owned()).filter(|version| version != "<none>");
    let at: DateTime = time.parse().ok()?;
    let at_ms = zone.to_ambiguous_timestamp(at).compatible().ok()?.as_millisecond();
    Some((at_ms, Change { action, name, from: version(), to: version() }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: i64 = 1_785_161_407_000;

    fn utc(line: &str) -> Option<(i64, Change)> {
        parse(line, &TimeZone::UTC)
    }

    #[test]
    fn each_action_has_its_versions() {
        let owned = |text: &str| Some(text.to_owned());
        for (line, action, from, to) in [
            ("upgrade t3-dispatch:amd64 0.1.0 0.1.1", "upgrade", owned("0.1.0"), owned("0.1.1")),
            ("install t3-dispatch:amd64 <none> 0.1.1", "install", None, owned("0.1.1")),
            ("remove t3-dispatch:amd64 0.1.1 <none>", "remove", owned("0.1.1"), None),
            ("purge t3-dispatch:amd64 0.1.1 <none>", "purge", owned("0.1.1"), None),
        ] {
            let read = utc(&format!("2026-07-27 14:10:07 {line}")).unwrap();
            let what = Change { action, name: "t3-dispatch:amd64".to_owned(), from, to };
            assert_eq!(read, (AT, what), "{line}");
        }
    }

    #[test]
    fn other_lines_are_ignored() {
        for line in [
            "",
            "2026-07-27 14:10:07 startup archives unpack",
            "2026-07-27 14:10:07 status installed t3-dispatch:amd64 0.1.1",
            "2026-07-27 14:10:07 trigproc libc-bin:amd64 2.36 <none>",
            "07 upgrade t3-dispatch:amd64 0.1.0 0.1.1",
            "2026-02-30 14:10:07 upgrade a:amd64 1 2",
        ] {
            assert_eq!(utc(line), None, "{line}");
        }
    }

    #[test]
    fn only_the_range_is_kept_and_a_missing_file_is_empty() {
        let text = "x upgrade a:amd64 1 2\n2026-07-27 13:10:06 upgrade a:amd64 1 2\n2026-07-27 14:10:07 upgrade b:amd64 1 2\n";
        let kept = changes(text, (AT - 3_600_000, AT), TimeZone::UTC);
        assert_eq!(kept.map(|change| change.1.name).collect::<Vec<_>>(), ["b:amd64"]);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&dir.path().join("none"), (0, AT), |_| true).unwrap(), []);
        assert!(read(dir.path(), (0, AT), |_| true).is_err());
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_ignored(line in "[0-9: -]{0,20}(upgrade|install)? ?\\PC{0,40}") {
            let _ = utc(&line);
        }
    }
}
