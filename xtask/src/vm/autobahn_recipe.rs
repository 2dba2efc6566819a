//! Contents of the file system of the Autobahn suite; their hash is the key of the cached tree.

use std::path::PathBuf;

use anyhow::Result;

use crate::vm::recipe::{PATH_EXCLUDES, fnv1a};
use crate::vm::rootfs::path_text;

/// The last release of Debian with Python 2.
const SUITE: &str = "bullseye";
/// Python 2 and the compilers for its packages.
const PACKAGES: [&str; 8] = [
    "python2",
    "python2-dev",
    "python-setuptools",
    "gcc",
    "libc6-dev",
    "libffi-dev",
    "libssl-dev",
    "ca-certificates",
];
/// The last pip for Python 2.
pub const PIP: &str = "pip==20.3.4";
/// Its file name; pip requires the full name of a wheel.
pub const PIP_WHEEL: &str = "pip-20.3.4-py2.py3-none-any.whl";
/// Every Python package with its version.
pub const REQUIREMENTS: &str = include_str!("autobahn_requirements.txt");
/// Run in order, each in the new tree `$1`, with `FILES` for the folder of files.
const HOOKS: [&str; 6] = [
    "test ! -s 'FILES/certificates.crt' || install -m 644 'FILES/certificates.crt' \"$1/etc/ssl/certs/ca-certificates.crt\"",
    "install -m 600 'FILES/pip.conf' \"$1/etc/pip.conf\"",
    "mkdir \"$1/tmp/files\" && cp 'FILES/'*.whl 'FILES/requirements.txt' \"$1/tmp/files/\"",
    // A pip that runs from its wheel can install only pip itself, nothing that has to be compiled.
    "cd \"$1/tmp/files\" && chroot \"$1\" python2 /tmp/files/WHEEL/pip install -q --no-cache-dir --no-index /tmp/files/WHEEL",
    "chroot \"$1\" python2 -m pip install -q --no-cache-dir --no-deps -r /tmp/files/requirements.txt",
    // The suite must start; the configuration of pip is removed.
    "chroot \"$1\" python2 -c 'import autobahntestsuite.wstest' && rm -rf \"$1/tmp/files\" \"$1/etc/pip.conf\"",
];

/// A file system to build.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Where Debian packages come from.
    pub mirror: String,
    /// apt.conf lines.
    pub apt_options: Vec<String>,
    /// Holds the wheel of pip, `requirements.txt`, `pip.conf` and `certificates.crt`.
    pub files: PathBuf,
}

impl Recipe {
    /// Names what goes into the tree: same key, same tree. The mirror is not part of it.
    pub fn key(&self) -> String {
        let mut parts = vec![SUITE, PIP, REQUIREMENTS];
        parts.extend(PACKAGES);
        parts.extend(HOOKS);
        format!("{:016x}", fnv1a(&parts))
    }

    /// mmdebstrap's arguments, for a tree in `dir`.
    pub fn mmdebstrap_args(&self, dir: &str) -> Result<Vec<String>> {
        let files = path_text(&self.files)?;
        let mut args = vec!["--variant=apt".to_owned(), format!("--include={}", PACKAGES.join(","))];
        args.extend(self.apt_options.iter().map(|option| format!("--aptopt={option}")));
        args.push("--aptopt=Acquire::Languages \"none\";".to_owned());
        args.push("--dpkgopt=force-unsafe-io".to_owned());
        args.extend(PATH_EXCLUDES.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
        let hooks = HOOKS.iter().map(|hook| hook.replace("FILES", files).replace("WHEEL", PIP_WHEEL));
        args.extend(hooks.map(|hook| format!("--customize-hook={hook}")));
        args.extend([SUITE.to_owned(), dir.to_owned(), format!("deb {} {SUITE} main", self.mirror)]);
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::{REQUIREMENTS, Recipe};

    fn recipe(mirror: &str) -> Recipe {
        Recipe {
            mirror: mirror.to_owned(),
            apt_options: vec!["Acquire::Retries \"3\";".to_owned()],
            files: "/f".into(),
        }
    }

    #[test]
    fn every_python_package_has_one_version() {
        let names = REQUIREMENTS.lines().filter(|line| !line.starts_with('#'));
        let pinned: Vec<_> = names.map(|line| line.split_once("==")).collect();
        assert!(pinned.len() > 20 && pinned.iter().all(Option::is_some), "{pinned:?}");
        assert!(REQUIREMENTS.contains("autobahntestsuite==0.8.2"));
    }

    #[test]
    fn the_mirror_is_in_the_command_and_not_in_the_key() {
        let (one, other) = (recipe("http://m.example/d"), recipe("http://o.example/d"));
        assert_eq!(one.key(), other.key());
        let args = one.mmdebstrap_args("/t").unwrap();
        assert_eq!(args.last().unwrap(), "deb http://m.example/d bullseye main");
        assert!(args.contains(&"--aptopt=Acquire::Retries \"3\";".to_owned()));
        assert!(!args.iter().any(|arg| arg.contains("FILES") || arg.contains("WHEEL")), "{args:?}");
    }
}
