//! All cgroups of the host, by the number that the kernel gives them.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::unit_of;

/// Limit of read cgroups: users can make their own.
const MOST: usize = 20_000;

/// Number of a cgroup: the inode of its folder, as `bpf_get_current_cgroup_id` returns it.
#[must_use]
pub fn id_of(dir: &Path) -> Option<u64> {
    fs::metadata(dir).ok().map(|meta| meta.ino())
}

/// The cgroups at one moment.
#[derive(Debug, Default)]
pub struct Tree {
    dirs: HashMap<u64, PathBuf>,
}

impl Tree {
    /// Reads the folders below the mount point of cgroup version 2, the upper ones first: up to
    /// 20,000.
    #[must_use]
    pub fn read(mount: &Path) -> Self {
        let mut dirs = HashMap::new();
        let mut level = vec![mount.to_owned()];
        while !level.is_empty() && dirs.len() < MOST {
            let below = level.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
            dirs.extend(level.into_iter().filter_map(|dir| Some((id_of(&dir)?, dir))));
            level = below;
        }
        Self { dirs }
    }

    /// Folder of the cgroup with this number.
    #[must_use]
    pub fn dir(&self, id: u64) -> Option<&Path> {
        self.dirs.get(&id).map(PathBuf::as_path)
    }

    /// Numbers of the cgroups of a systemd unit: its own and those below, but for those of units
    /// below.
    #[must_use]
    pub fn of_unit(&self, unit: &str) -> Vec<u64> {
        let of_unit = self.dirs.iter().filter(|(_, dir)| unit_of(dir).as_deref() == Some(unit));
        of_unit.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroups_of_a_unit_are_its_own_and_those_below() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["a.slice/b.service/c", "a.slice/b.service/d.scope", "a.slice/bb.service", "user.slice"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        fs::write(root.path().join("a.slice/cgroup.procs"), "1").unwrap();
        let tree = Tree::read(root.path());
        let dirs = |unit| {
            let mut dirs: Vec<_> = tree
                .of_unit(unit)
                .iter()
                .map(|id| tree.dir(*id).unwrap().strip_prefix(root.path()).unwrap())
                .collect();
            dirs.sort();
            dirs.iter().map(|dir| dir.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(dirs("b.service"), ["a.slice/b.service", "a.slice/b.service/c"]);
        assert_eq!(dirs("d.scope"), ["a.slice/b.service/d.scope"]);
        assert_eq!(dirs("none.service"), Vec::<&str>::new());
        assert_eq!(tree.dir(id_of(root.path()).unwrap()), Some(root.path()));
        assert_eq!(Tree::read(&root.path().join("none")).dirs.len(), 0);
    }
}
