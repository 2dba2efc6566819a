//! Settings of journald from journald.conf and its drop-ins.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    super::facts::{JournaldConf, Limit, Setting},
    units::span_us,
};

/// Directories of journald.conf and its drop-ins; later ones override earlier ones (systemd's
/// precedence).
const DIRS: [&str; 4] = ["/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd"];

pub(super) fn read() -> JournaldConf {
    merged(
        paths()
            .into_iter()
            .filter_map(|path| Some((path.display().to_string(), fs::read_to_string(path).ok()?))),
    )
}

/// The main file, then drop-ins by name.
fn paths() -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if let Some(main) =
        DIRS.iter().rev().map(|dir| Path::new(dir).join("journald.conf")).find(|path| path.exists())
    {
        paths.push(main);
    }
    // Sorted by file name; a file of the same name in a later directory replaces it.
    let mut drop_ins = BTreeMap::new();
    for dir in DIRS {
        let folder = fs::read_dir(Path::new(dir).join("journald.conf.d")).into_iter().flatten().flatten();
        let files =
            folder.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "conf"));
        drop_ins.extend(files.map(|path| (path.file_name().map(ToOwned::to_owned), path)));
    }
    paths.extend(drop_ins.into_values());
    paths
}

/// The last file with a setting counts; the defaults are systemd's.
fn merged(files: impl Iterator<Item = (String, String)>) -> JournaldConf {
    let mut limit = Limit { interval_us: 30_000_000, burst: 10_000, from: "journald's default".to_owned() };
    let (mut max_level, mut storage) = (None, None);
    for (path, text) in files {
        let settings = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
        for (name, value) in settings.filter_map(|line| line.split_once('=')) {
            let value = value.trim();
            // An empty value is the default again.
            let setting = || {
                (!value.is_empty()).then(|| Setting { value: value.to_ascii_lowercase(), from: path.clone() })
            };
            match name.trim() {
                "RateLimitIntervalSec" | "RateLimitInterval" => {
                    limit.interval_us = span_us(value).unwrap_or(limit.interval_us);
                    limit.from.clone_from(&path);
                }
                "RateLimitBurst" => {
                    limit.burst = value.parse().unwrap_or(limit.burst);
                    limit.from.clone_from(&path);
                }
                "MaxLevelStore" => max_level = setting(),
                "Storage" => storage = setting(),
                _ => {}
            }
        }
    }
    JournaldConf { limit, max_level, storage }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> JournaldConf {
        merged(texts.iter().enumerate().map(|(n, text)| (n.to_string(), (*text).to_owned())))
    }

    #[test]
    fn the_last_file_with_a_setting_counts() {
        let limit_of = |texts: &[&str]| {
            let limit = of(texts).limit;
            (limit.interval_us, limit.burst, limit.from)
        };
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
    fn level_and_storage_are_read_with_their_file() {
        let setting =
            |value: &str, from: &str| Some(Setting { value: value.to_owned(), from: from.to_owned() });
        assert_eq!(of(&[]).max_level, None);
        let conf = of(&["MaxLevelStore=debug\nStorage=none\n", "[Journal]\nMaxLevelStore = Notice\n"]);
        assert_eq!((conf.max_level, conf.storage), (setting("notice", "1"), setting("none", "0")));
        let conf = of(&["MaxLevelStore=notice\nStorage=none\n", "MaxLevelStore=\nStorage=\n"]);
        assert_eq!((conf.max_level, conf.storage), (None, None));
    }
}
