//! Unit files that hide those of a package: systemd loads a unit from the first directory of its
//! load path that has the file (systemd.unit(5)), so that a copy in `/etc` keeps an old version in
//! use.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// Directories before those of packages, in the order of the load path. Generated units are left
/// out: they are not for units of packages.
const BEFORE: [&str; 8] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/usr/local/lib/systemd/system",
];
/// Directories of packages; the second is the same as the first on most hosts.
const PACKAGED: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
/// Target of a mask.
const NOTHING: &str = "/dev/null";

/// A file with the name of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitFile {
    /// With settings of its own.
    Own,
    /// A symbolic link to another file.
    Link(PathBuf),
    /// A link to `/dev/null` or an empty file (`systemctl mask`).
    Mask,
}

/// A unit of a package that another file hides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenUnit {
    /// Name of the unit.
    pub unit: String,
    /// The file that systemd uses.
    pub by: PathBuf,
    /// The file of the package.
    pub packaged: PathBuf,
    /// The unit cannot be started.
    pub is_masked: bool,
}

impl fmt::Display for HiddenUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (by, packaged) = (self.by.display(), self.packaged.display());
        if self.is_masked {
            write!(f, "{by} masks {packaged}: it cannot be started")
        } else {
            write!(
                f,
                "{by} hides the packaged unit {packaged}: its settings and their updates have no effect"
            )
        }
    }
}

impl HiddenUnit {
    /// What the operator should do.
    #[must_use]
    pub fn remedy(&self) -> String {
        let (unit, by) = (&self.unit, self.by.display());
        if self.is_masked {
            format!("systemctl unmask {unit}, if it is not meant to be off")
        } else {
            format!(
                "move your settings to a drop-in (systemctl edit {unit}); rm {by}; systemctl daemon-reload; \
                 restart {unit} when a disconnect of its sessions is acceptable"
            )
        }
    }
}

/// Returns the hidden ones of these units. `look` returns the file at a path. Pure.
pub fn hidden(units: &[&str], look: impl Fn(&Path) -> Option<UnitFile>) -> Vec<HiddenUnit> {
    let first = |folders: &[&str], unit: &str| {
        folders.iter().map(|folder| Path::new(folder).join(unit)).find_map(|path| Some((look(&path)?, path)))
    };
    let of_unit = |unit: &&str| {
        let (_, packaged) = first(&PACKAGED, unit)?;
        let (file, by) = first(&BEFORE, unit)?;
        let is_packaged =
            |target: &Path| PACKAGED.iter().any(|folder| target == Path::new(folder).join(unit));
        match file {
            UnitFile::Link(target) if is_packaged(&target) => None,
            file => {
                let is_masked = file == UnitFile::Mask;
                Some(HiddenUnit { unit: (*unit).to_owned(), by, packaged, is_masked })
            }
        }
    };
    units.iter().filter_map(of_unit).collect()
}

/// [`hidden`] with the files of this host.
#[must_use]
pub fn hidden_on_this_host(units: &[&str]) -> Vec<HiddenUnit> {
    hidden(units, look)
}

/// The file at a path; `None` if there is none, or it cannot be examined.
fn look(path: &Path) -> Option<UnitFile> {
    let about = fs::symlink_metadata(path).ok()?;
    if !about.is_symlink() {
        return Some(if about.len() == 0 { UnitFile::Mask } else { UnitFile::Own });
    }
    // A link without a target hides, too.
    let target = fs::canonicalize(path).or_else(|_| fs::read_link(path)).ok()?;
    Some(if target == Path::new(NOTHING) { UnitFile::Mask } else { UnitFile::Link(target) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const LIB: &str = "/usr/lib/systemd/system/a.service";

    fn found(files: &[(&str, UnitFile)]) -> Option<(String, bool)> {
        let look = |path: &Path| {
            files.iter().find(|(name, _)| path == Path::new(name)).map(|(_, file)| file.clone())
        };
        let hidden = hidden(&["a.service", "b.socket"], look);
        assert!(hidden.len() < 2, "{hidden:?}");
        hidden.first().map(|hidden| (hidden.by.display().to_string(), hidden.is_masked))
    }

    #[test]
    fn a_file_before_the_packaged_one_in_the_load_path_hides_it() {
        let own = || UnitFile::Own;
        let link = |target: &str| UnitFile::Link(target.into());
        let etc = "/etc/systemd/system/a.service";
        for (files, expected) in [
            (&[][..], None),
            (&[(LIB, own())], None),
            // Installed by hand, without a package.
            (&[(etc, own())], None),
            (&[(etc, own()), ("/usr/lib/systemd/system/b.socket", own())], None),
            (&[(LIB, own()), (etc, own())], Some((etc, false))),
            (&[("/lib/systemd/system/a.service", own()), (etc, own())], Some((etc, false))),
            (&[(LIB, own()), (etc, link("/opt/a.service"))], Some((etc, false))),
            (&[(LIB, own()), (etc, UnitFile::Mask)], Some((etc, true))),
            // `systemctl link` of the packaged file.
            (&[(LIB, own()), (etc, link(LIB))], None),
            (
                &[(LIB, own()), ("/usr/local/lib/systemd/system/a.service", own())],
                Some(("/usr/local/lib/systemd/system/a.service", false)),
            ),
            // The first in the load path is the one in use.
            (
                &[(LIB, own()), (etc, own()), ("/run/systemd/system/a.service", UnitFile::Mask)],
                Some((etc, false)),
            ),
            // A drop-in hides nothing.
            (&[(LIB, own()), ("/etc/systemd/system/a.service.d/x.conf", own())], None),
        ] {
            let expected = expected.map(|(by, is_masked)| (by.to_owned(), is_masked));
            assert_eq!(found(files), expected, "{files:?}");
        }
    }

    #[test]
    fn files_links_and_masks_are_distinguished() {
        let dir = tempfile::tempdir().unwrap();
        let [own, empty, link, mask, dangling] =
            ["own", "empty", "link", "mask", "dangling"].map(|name| dir.path().join(name));
        fs::write(&own, "[Unit]\n").unwrap();
        fs::write(&empty, "").unwrap();
        symlink(&own, &link).unwrap();
        symlink(NOTHING, &mask).unwrap();
        symlink("/nonexistent", &dangling).unwrap();
        let target = fs::canonicalize(&own).unwrap();
        for (path, expected) in [
            (own, Some(UnitFile::Own)),
            (empty, Some(UnitFile::Mask)),
            (link, Some(UnitFile::Link(target))),
            (mask, Some(UnitFile::Mask)),
            (dangling, Some(UnitFile::Link("/nonexistent".into()))),
            (dir.path().join("none"), None),
        ] {
            assert_eq!(look(&path), expected, "{}", path.display());
        }
    }

    #[test]
    fn the_text_names_both_files_and_the_remedy_the_unit() {
        let hidden = |is_masked| HiddenUnit {
            unit: "a.service".to_owned(),
            by: "/etc/systemd/system/a.service".into(),
            packaged: LIB.into(),
            is_masked,
        };
        let text = hidden(false).to_string();
        assert!(
            text.starts_with("/etc/systemd/system/a.service hides the packaged unit /usr/lib/"),
            "{text}"
        );
        assert!(hidden(false).remedy().contains("rm /etc/systemd/system/a.service; systemctl daemon-reload"));
        assert!(hidden(true).to_string().contains(" masks /usr/lib/systemd/system/a.service"));
        assert!(hidden(true).remedy().starts_with("systemctl unmask a.service"));
    }
}
