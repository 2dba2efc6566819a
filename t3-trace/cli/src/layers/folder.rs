//! Files of a folder of logs, for example the batches of Logpush: bounded, without links, and only
//! those whose name can be from the time of the close.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::Window;

/// Deepest level of subfolders.
const DEEPEST: usize = 4;
/// Limit of entries.
const MOST: usize = 50_000;
/// Time before the window in which a batch may end, in milliseconds: clocks differ.
const BEFORE: i64 = 600_000;
/// Time after the window in which a batch with its records may start, in milliseconds.
const AFTER: i64 = 3_600_000;

/// Files to read.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Sorted by name.
    pub files: Vec<PathBuf>,
    /// A limit was reached.
    pub cut: bool,
}

/// Returns the file itself, or the files of a folder.
///
/// # Errors
/// The file or the folder cannot be read.
pub(super) fn files(path: &Path, window: Window) -> io::Result<Found> {
    let mut found = Found::default();
    if !fs::metadata(path)?.is_dir() {
        found.files.push(path.to_owned());
        return Ok(found);
    }
    let mut folders = vec![(path.to_owned(), 0)];
    let mut entries = 0;
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            entries += 1;
            if entries > MOST {
                found.cut = true;
                folders.clear();
                break;
            }
            let entry = entry?;
            let (kind, name) = (entry.file_type()?, entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            if kind.is_dir() && depth < DEEPEST {
                folders.push((entry.path(), depth + 1));
            } else if kind.is_dir() {
                found.cut = true;
            } else if kind.is_file() && may_hold(&name, window) {
                found.files.push(entry.path());
            }
        }
    }
    found.files.sort();
    Ok(found)
}

/// Whether a file can have lines of the window. Logpush names its batches by start and end:
/// `20260822T100000Z_20260822T100500Z_6a7b.log.gz`; any other name can.
fn may_hold(name: &str, window: Window) -> bool {
    let mut parts = name.split('_');
    let mut next = || at(parts.next()?);
    let (Some(start), Some(end)) = (next(), next()) else { return true };
    end >= window.from_ms.saturating_sub(BEFORE) && start <= window.until_ms.saturating_add(AFTER)
}

fn at(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let time = Timestamp::strptime("%Y%m%dT%H%M%S %z", format!("{text} +0000"));
    time.ok().map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_selected_by_its_name() {
        let close = at("20260822T100102Z").unwrap();
        let window = Window { from_ms: close - 60_000, until_ms: close + 60_000 };
        for (name, may) in [
            ("20260822T100000Z_20260822T100500Z_6a7b.log.gz", true),
            ("20260822T100500Z_20260822T101000Z_6a7b.log.gz", true),
            ("20260822T095500Z_20260822T095959Z_6a7b.log.gz", true),
            ("20260822T093000Z_20260822T093500Z_6a7b.log.gz", false),
            ("20260822T113000Z_20260822T113500Z_6a7b.log.gz", false),
            ("20260822T113000Z.log", true),
            ("batch.json", true),
        ] {
            assert_eq!(may_hold(name, window), may, "{name}");
        }
    }

    #[test]
    fn links_hidden_files_and_deep_folders_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let window = Window { from_ms: 0, until_ms: 0 };
        let deep = dir.path().join("1/2/3/4/5");
        fs::create_dir_all(&deep).unwrap();
        for name in ["a.log", ".b.log", "1/c.log", "1/2/3/4/d.log", "1/2/3/4/5/e.log"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let found = files(dir.path(), window).unwrap();
        let names: Vec<_> =
            found.files.iter().map(|path| path.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!((names, found.cut), (vec!["1/2/3/4/d.log", "1/c.log", "a.log"], true));
        let file = dir.path().join("a.log");
        assert_eq!(files(&file, window).unwrap().files, [file]);
    }
}
