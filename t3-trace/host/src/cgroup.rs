//! Which cgroup a process is in, and what that cgroup says of itself. Only version 2, in the pure
//! and the hybrid layout (where version 2 is mounted beside the controllers of version 1); on
//! version 1 alone there is no answer.

use std::path::{Component, Path, PathBuf};

/// Counters of `memory.events` since the cgroup was made; they include the cgroups below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Processes killed by the OOM killer.
    pub oom_kills: u64,
    /// Times tasks were throttled at `memory.high`.
    pub high: u64,
}

/// Use and limit at one moment, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryNow {
    /// `memory.current`.
    pub current: Option<u64>,
    /// `memory.max`; `None` when unlimited.
    pub max: Option<u64>,
}

/// Where cgroup version 2 is mounted, as `/proc/self/mountinfo` tells (proc_pid_mountinfo(5)): the
/// mount that shows the root of the hierarchy.
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

/// Blanks and the like are written as three octal digits.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The path of version 2 in `/proc/PID/cgroup` (cgroups(7)): the line of hierarchy 0. `None` on
/// version 1 alone, and for a path outside our own cgroup namespace.
#[must_use]
pub fn path_of(proc_cgroup: &str) -> Option<&str> {
    let path = proc_cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    // A cgroup that was removed while the process lived on is marked so.
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let inside =
        Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    (path.starts_with('/') && inside).then_some(path)
}

/// The directory of a process's cgroup.
#[must_use]
pub fn dir_of(mount: &Path, pid: u32) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    Some(mount.join(path_of(&text)?.trim_start_matches('/')))
}

/// `memory.events` of a cgroup; `None` where the memory controller is not (hybrid layouts).
#[must_use]
pub fn memory_events(dir: &Path) -> Option<MemoryEvents> {
    let text = std::fs::read_to_string(dir.join("memory.events")).ok()?;
    Some(MemoryEvents { oom_kills: keyed(&text, "oom_kill")?, high: keyed(&text, "high")? })
}

/// `memory.current` and `memory.max` of a cgroup.
#[must_use]
pub fn memory_now(dir: &Path) -> Option<MemoryNow> {
    let number = |name: &str| std::fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok();
    let memory = MemoryNow { current: number("memory.current"), max: number("memory.max") };
    (memory != MemoryNow::default()).then_some(memory)
}

/// Is the cgroup, or one above it, frozen?
#[must_use]
pub fn is_frozen(dir: &Path) -> bool {
    let text = std::fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
    keyed(&text, "frozen") == Some(1)
}

/// The processes in the cgroup itself.
#[must_use]
pub fn members(dir: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
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
    fn version_one_alone_and_partial_mounts_have_no_root() {
        assert_eq!(mount_point("31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"), None);
        assert_eq!(mount_point("30 24 0:26 /a/b /mnt rw - cgroup2 cgroup2 rw\n"), None);
        assert_eq!(mount_point("garbage"), None);
    }

    #[test]
    fn the_path_is_that_of_hierarchy_zero() {
        let hybrid = "4:memory:/x\n1:name=systemd:/y\n0::/system.slice/t3-serve@wizard.service\n";
        assert_eq!(path_of(hybrid), Some("/system.slice/t3-serve@wizard.service"));
        assert_eq!(path_of("0::/\n"), Some("/"));
        assert_eq!(path_of("0::/gone.service (deleted)\n"), Some("/gone.service"));
        assert_eq!(path_of("4:memory:/x\n"), None);
        assert_eq!(path_of("0::/../outside\n"), None);
    }

    #[test]
    fn oom_kill_is_not_mistaken_for_its_neighbours() {
        let text = "low 1\nhigh 22\nmax 3\noom 44\noom_kill 5\noom_group_kill 6\n";
        assert_eq!(
            (keyed(text, "oom_kill"), keyed(text, "high"), keyed(text, "oom")),
            (Some(5), Some(22), Some(44))
        );
    }

    #[test]
    fn our_own_cgroup_is_found_where_version_two_is_mounted() {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let Some(mount) = mount_point(&mountinfo) else {
            assert!(std::env::var_os("CI").is_none(), "CI needs cgroup version 2");
            println!("not shown here: no cgroup version 2 on this machine");
            return;
        };
        let dir = dir_of(&mount, std::process::id()).unwrap();
        assert!(members(&dir).contains(&std::process::id()), "{}", dir.display());
    }
}
