//! Debian packages that commands need. xtask installs them as root or with `sudo -n`; else it
//! prints the `apt-get` line to run.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};

use crate::tools::run::{self, run_checked};
use crate::tools::{progress, sudo};

/// Purpose of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageSet {
    /// Compiling anything.
    Build,
    /// Tests on this host.
    Host,
    /// The guests.
    Vm,
    /// The fuzz targets.
    Fuzz,
    /// The benchmark.
    Bench,
    /// Static programs with parts in C.
    Release,
    /// Debian packages.
    Package,
    /// Static programs and packages of arm64.
    Arm64,
}

/// (a program in PATH or a file, its package, its purpose)
const TABLE: &[(&str, &str, PackageSet)] = &[
    ("cc", "gcc", PackageSet::Build),
    ("/usr/include/stdio.h", "libc6-dev", PackageSet::Build),
    ("chromium", "chromium", PackageSet::Host),
    ("haproxy", "haproxy", PackageSet::Host),
    ("ip", "iproute2", PackageSet::Host),
    ("nft", "nftables", PackageSet::Host),
    ("nginx", "nginx", PackageSet::Host),
    ("journalctl", "systemd", PackageSet::Host),
    ("/lib/systemd/systemd-journald", "systemd", PackageSet::Host),
    ("mmdebstrap", "mmdebstrap", PackageSet::Host),
    ("promtool", "prometheus", PackageSet::Host),
    ("tmux", "tmux", PackageSet::Host),
    ("mmdebstrap", "mmdebstrap", PackageSet::Vm),
    ("qemu-system-x86_64", "qemu-system-x86", PackageSet::Vm),
    ("mke2fs", "e2fsprogs", PackageSet::Vm),
    ("tar", "tar", PackageSet::Vm),
    ("setpriv", "util-linux", PackageSet::Vm),
    ("c++", "g++", PackageSet::Fuzz),
    ("haproxy", "haproxy", PackageSet::Bench),
    ("nginx", "nginx", PackageSet::Bench),
    ("musl-gcc", "musl-tools", PackageSet::Release),
    ("dpkg-deb", "dpkg", PackageSet::Package),
    ("strip", "binutils", PackageSet::Package),
    ("lintian", "lintian", PackageSet::Package),
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", PackageSet::Arm64),
    ("/usr/aarch64-linux-gnu/include/stdio.h", "libc6-dev-arm64-cross", PackageSet::Arm64),
    ("qemu-aarch64-static", "qemu-user-static", PackageSet::Arm64),
];
/// Package lists older than this may name versions that the archive no longer has.
const LISTS_STALE: Duration = Duration::from_secs(24 * 3600);

/// Makes sure that every package of `set` is installed.
pub fn ensure(set: PackageSet) -> Result<()> {
    let missing = missing(set, present);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let by_hand = format!("apt-get update && apt-get install -y --no-install-recommends {names}");
    if sudo::root() == sudo::Root::No || !run::exists("apt-get") {
        bail!("Debian packages are missing; run as root: {by_hand}");
    }
    progress::step(&format!("installing {names}"));
    if lists_are_stale() {
        apt(&["update"])?;
    }
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(missing.iter().copied());
    if apt(&install).is_err() {
        progress::note("retrying with fresh package lists");
        apt(&["update"])?;
        apt(&install)?;
    }
    let still = self::missing(set, present);
    if !still.is_empty() {
        bail!("apt-get installed {names}, but files of {} are still missing", still.join(" "));
    }
    Ok(())
}

fn missing(set: PackageSet, present: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut names: Vec<&str> =
        TABLE.iter().filter(|(what, _, of)| *of == set && !present(what)).map(|(_, name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn present(what: &str) -> bool {
    if what.starts_with('/') { Path::new(what).exists() } else { run::exists(what) }
}

fn lists_are_stale() -> bool {
    let newest = std::fs::read_dir("/var/lib/apt/lists").ok().and_then(|entries| {
        let indexes =
            entries.flatten().filter(|entry| entry.file_name().to_string_lossy().contains("InRelease"));
        indexes.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
    });
    newest.is_none_or(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > LISTS_STALE))
}

fn apt(args: &[&str]) -> Result<()> {
    let Some(mut command) = sudo::command("env") else { bail!("apt-get needs root") };
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"])
        .args(args);
    run_checked("apt-get", command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{PackageSet, TABLE, missing};

    #[test]
    fn each_missing_package_is_named_once() {
        assert_eq!(
            missing(PackageSet::Host, |_| false),
            [
                "chromium",
                "haproxy",
                "iproute2",
                "mmdebstrap",
                "nftables",
                "nginx",
                "prometheus",
                "systemd",
                "tmux"
            ]
        );
        assert!(missing(PackageSet::Host, |_| true).is_empty());
        assert_eq!(missing(PackageSet::Vm, |what| what != "mke2fs"), ["e2fsprogs"]);
    }

    #[test]
    fn the_table_holds_names_not_command_lines() {
        assert!(TABLE.iter().all(|(what, name, _)| !what.contains(' ') && !name.contains(' ')));
    }
}
