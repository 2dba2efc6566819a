//! Cgroup of a process, with its memory counters.
//!
//! Version 2 only, in the unified and the hybrid layout (version 2 is mounted next to the
//! controllers of version 1).

use std::path::{Component, Path, PathBuf};

use crate::small_file;

mod tree;

pub use tree::{Tree, id_of};

/// Counters of `memory.events` since the cgroup was created, descendants included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Processes killed by the OOM killer.
    pub oom_kills: u64,
    /// Number of times tasks were throttled at `memory.high`.
    pub high: u64,
}

/// Current use and limit in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryNow {
    /// `memory.current`.
    pub current: Option<u64>,
    /// `memory.max`; `None` when unlimited.
    pub max: Option<u64>,
}

/// Mount point of cgroup version 2 that shows the root of the hierarchy, from
/// `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[must_use]
pub fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        if after.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (root == "/").then(|| PathBuf::from(unescape(point)))
    })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Path of the version 2 cgroup in `/proc/PID/cgroup` (cgroups(7)): the line of hierarchy 0. `None`
/// with version 1 alone, and for a path outside the cgroup namespace of this process.
#[must_use]
pub fn path_of(proc_cgroup: &str) -> Option<&str> {
    let path = proc_cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    // The kernel appends this when the cgroup was removed and the process continues.
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let inside =
        Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    (path.starts_with('/') && inside).then_some(path)
}

/// Returns the directory of a process's cgroup.
#[must_use]
pub fn dir_of(mount: &Path, pid: u32) -> Option<PathBuf> {
    let text = small_file::text(format!("/proc/{pid}/cgroup")).ok()?;
    Some(mount.join(path_of(&text)?.trim_start_matches('/')))
}

/// systemd unit of a cgroup: the innermost service or scope of its path.
#[must_use]
pub fn unit_of(dir: &Path) -> Option<String> {
    let names = dir.components().rev().filter_map(|part| part.as_os_str().to_str());
    let mut units = names.filter(|name| name.ends_with(".service") || name.ends_with(".scope"));
    units.next().map(str::to_owned)
}

/// `memory.events` of a cgroup; `None` without the memory controller (hybrid layouts).
#[must_use]
pub fn memory_events(dir: &Path) -> Option<MemoryEvents> {
    let text = small_file::text(dir.join("memory.events")).ok()?;
    Some(MemoryEvents { oom_kills: keyed(&text, "oom_kill")?, high: keyed(&text, "high")? })
}

#[must_use]
pub fn memory_now(dir: &Path) -> Option<MemoryNow> {
    let number = |name: &str| small_file::text(dir.join(name)).ok()?.trim().parse().ok();
    let memory = MemoryNow { current: number("memory.current"), max: number("memory.max") };
    (memory != MemoryNow::default()).then_some(memory)
}

/// Whether the cgroup or an ancestor is frozen.
#[must_use]
pub fn is_frozen(dir: &Path) -> bool {
    let text = small_file::text(dir.join("cgroup.events")).unwrap_or_default();
    keyed(&text, "frozen") == Some(1)
}

/// Processes in the cgroup itself, without descendants.
#[must_use]
pub fn members(dir: &Path) -> Vec<u32> {
    let text = small_file::text(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_in_both_layouts() {
        let pure = "24 29 0:22 / /sys rw - sysfs sysfs rw\n\
                    30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mount_point(pure), Some(PathBuf::from("/sys/fs/cgroup")));
        let hybrid = "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn the_unit_is_the_innermost_of_the_path() {
        for (path, unit) in [
            ("/sys/fs/cgroup/system.slice/nginx.service", Some("nginx.service")),
            ("/c/user.slice/user-1000.slice/user@1000.service/app.slice/code.service", Some("code.service")),
            ("/c/system.slice/t3-serve@ann.service/child", Some("t3-serve@ann.service")),
            ("/c/system.slice/docker-0a.scope", Some("docker-0a.scope")),
            ("/c/user.slice", None),
            ("/", None),
        ] {
            assert_eq!(unit_of(Path::new(path)).as_deref(), unit, "{path}");
        }
    }

    #[test]
    fn version_1_alone_and_partial_mounts_have_no_root() {
        assert_eq!(mount_point("31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"), None);
        assert_eq!(mount_point("30 24 0:26 /a/b /mnt rw - cgroup2 cgroup2 rw\n"), None);
        assert_eq!(mount_point("garbage"), None);
    }

    #[test]
    fn the_path_is_that_of_hierarchy_0() {
        let hybrid = "4:memory:/x\n1:name=systemd:/y\n0::/system.slice/t3-serve@wizard.service\n";
        assert_eq!(path_of(hybrid), Some("/system.slice/t3-serve@wizard.service"));
        assert_eq!(path_of("0::/\n"), Some("/"));
        assert_eq!(path_of("0::/gone.service (deleted)\n"), Some("/gone.service"));
        assert_eq!(path_of("4:memory:/x\n"), None);
        assert_eq!(path_of("0::/../outside\n"), None);
    }

    #[test]
    fn oom_kill_is_not_confused_with_similar_keys() {
        let text = "low 1\nhigh 22\nmax 3\noom 44\noom_kill 5\noom_group_kill 6\n";
        assert_eq!(
            (keyed(text, "oom_kill"), keyed(text, "high"), keyed(text, "oom")),
            (Some(5), Some(22), Some(44))
        );
    }

    #[test]
    fn the_cgroup_of_this_process_is_found_with_version_2() {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let Some(mount) = mount_point(&mountinfo) else {
            assert!(std::env::var_os("CI").is_none(), "CI needs cgroup version 2");
            println!("skipped: no cgroup version 2 on this host");
            return;
        };
        let dir = dir_of(&mount, std::process::id()).unwrap();
        assert!(members(&dir).contains(&std::process::id()), "{}", dir.display());
    }
}
