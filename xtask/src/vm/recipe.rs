//! Contents of a guest's file system; their hash is the key of the cached image.

use crate::vm::suite::Suite;

/// Options of mke2fs. With a small journal, because a test resets the guest.
pub const FILE_SYSTEM: [&str; 4] = ["-t", "ext4", "-J", "size=16"];

/// Packages of every guest: systemd as PID 1, the cloud kernel, and the tools that inject faults.
const PACKAGES: [&str; 11] = [
    "systemd",
    "systemd-sysv",
    "linux-image-cloud-amd64",
    "udev",
    "dbus",
    "iproute2",
    "procps",
    "kmod",
    "util-linux",
    // Dependencies of our packages: the guest has no network to install them.
    "sudo",
    "passwd",
];
/// Documentation is not read in a guest, and skipping it saves time.
pub const PATH_EXCLUDES: [&str; 4] =
    ["/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*"];
/// Units that would only slow down the tests.
const MASKED: [&str; 6] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "dpkg-db-backup.timer",
    "systemd-networkd-wait-online.service",
];
/// Started by systemd once the guest is up.
pub const UNIT: &str = include_str!("guest/t3-vm.service");
/// The program of that unit.
pub const RUNNER: &str = include_str!("guest/run.sh");

/// A file system to build.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The release.
    pub suite: Suite,
    /// Where packages come from.
    pub mirror: String,
    /// apt.conf lines.
    pub apt_options: Vec<String>,
}

impl Recipe {
    /// Names what goes into the image: same key, same image. The mirror and its options are not
    /// part of it.
    pub fn key(&self) -> String {
        let mut parts = vec![self.suite.name(), UNIT, RUNNER];
        parts.extend(PACKAGES);
        parts.extend(PATH_EXCLUDES);
        parts.extend(MASKED);
        parts.extend(FILE_SYSTEM);
        format!("{:016x}", fnv1a(&parts))
    }

    /// mmdebstrap's arguments, for a file system in `dir`; `files` holds [`UNIT`] and [`RUNNER`]
    /// under their names.
    pub fn mmdebstrap_args(&self, dir: &str, files: &str) -> Vec<String> {
        let mut args = vec!["--variant=apt".to_owned(), format!("--include={}", PACKAGES.join(","))];
        args.extend(self.apt_options.iter().map(|option| format!("--aptopt={option}")));
        args.push("--aptopt=Acquire::Languages \"none\";".to_owned());
        args.push("--dpkgopt=force-unsafe-io".to_owned());
        args.extend(PATH_EXCLUDES.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
        let unit_dir = "$1/etc/systemd/system";
        for hook in [
            format!("install -D -m 644 '{files}/t3-vm.service' \"{unit_dir}/t3-vm.service\""),
            format!("install -D -m 755 '{files}/run.sh' \"$1/usr/local/lib/t3-vm/run.sh\""),
            format!("mkdir -p \"{unit_dir}/multi-user.target.wants\""),
            format!("ln -s ../t3-vm.service \"{unit_dir}/multi-user.target.wants/t3-vm.service\""),
            format!("for unit in {}; do ln -sf /dev/null \"{unit_dir}/$unit\"; done", MASKED.join(" ")),
            "echo t3-vm > \"$1/etc/hostname\"".to_owned(),
        ] {
            args.push(format!("--customize-hook={hook}"));
        }
        args.push(self.suite.name().to_owned());
        args.push(dir.to_owned());
        args.push(format!("deb {} {} main", self.mirror, self.suite.name()));
        args
    }
}

/// FNV-1a over the parts, each ended by a byte that occurs in none of them.
pub fn fnv1a(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::{Recipe, fnv1a};
    use crate::vm::suite::Suite;

    fn recipe(suite: Suite, mirror: &str) -> Recipe {
        Recipe { suite, mirror: mirror.to_owned(), apt_options: vec!["Acquire::Retries \"3\";".to_owned()] }
    }

    #[test]
    fn the_key_follows_content_not_the_mirror() {
        let here = recipe(Suite::Bookworm, "http://a.example/");
        assert_eq!(here.key(), recipe(Suite::Bookworm, "http://b.example/").key());
        assert_ne!(here.key(), recipe(Suite::Trixie, "http://a.example/").key());
        assert_ne!(fnv1a(&["ab", "c"]), fnv1a(&["a", "bc"]));
    }

    #[test]
    fn the_release_and_the_mirror_come_last() {
        let args = recipe(Suite::Trixie, "http://a.example/d").mmdebstrap_args("/x", "/files");
        let end: Vec<&str> = args.iter().rev().take(3).map(String::as_str).collect();
        assert_eq!(end, ["deb http://a.example/d trixie main", "/x", "trixie"]);
        assert!(args.contains(&"--aptopt=Acquire::Retries \"3\";".to_owned()));
    }
}
