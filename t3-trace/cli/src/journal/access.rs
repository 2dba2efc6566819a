//! Checks whether this user may read the system journal. Without permission journalctl prints
//! nothing, which looks like a journal without records.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Directories of the system journal: persistent, volatile.
const PLACES: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

/// Returns the system journal if it exists and this user may not read it.
#[must_use]
pub fn closed() -> Option<PathBuf> {
    closed_in(&PLACES.map(Path::new), |path| File::open(path).map(drop))
}

fn closed_in(places: &[&Path], open: impl Fn(&Path) -> io::Result<()>) -> Option<PathBuf> {
    // One folder per machine ID; this host's is among them.
    let machines = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let journals = machines.map(|machine| machine.path().join("system.journal")).filter(|path| path.exists());
    let opened: Vec<(PathBuf, io::Result<()>)> = journals.map(|path| (path.clone(), open(&path))).collect();
    if opened.iter().any(|(_, opened)| opened.is_ok()) {
        return None;
    }
    let denied = |opened: &io::Result<()>| {
        opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    opened.into_iter().find(|(_, opened)| denied(opened)).map(|(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_existing_unreadable_journal_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path();
        let refuses = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
        assert_eq!(closed_in(&[place, Path::new("/no/such/place")], refuses), None);
        fs::create_dir(place.join("machine")).unwrap();
        assert_eq!(closed_in(&[place], refuses), None);
        let journal = place.join("machine/system.journal");
        fs::write(&journal, "").unwrap();
        assert_eq!(closed_in(&[place], refuses), Some(journal));
        assert_eq!(closed_in(&[place], |_| Ok(())), None);
        assert_eq!(closed_in(&[place], |_| Err(io::ErrorKind::NotFound.into())), None);
        // One readable journal is enough.
        fs::create_dir(place.join("other")).unwrap();
        fs::write(place.join("other/system.journal"), "").unwrap();
        let one = |path: &Path| if path.starts_with(place.join("other")) { Ok(()) } else { refuses(path) };
        assert_eq!(closed_in(&[place], one), None);
    }
}
