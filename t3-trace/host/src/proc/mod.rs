//! Processes and sockets in `/proc`, read with the procfs crate; stateless.
//!
//! By hand: the listening sockets ([`net`], every two seconds), with 3000 open sessions 4.0 ms
//! against 18.7 ms of procfs, which reads all connections; [`stat`], because the parser of procfs
//! 0.18 panics on a truncated line (11 µs either way); and the descriptors, because those of a
//! process whose first thread has ended are found with another thread only. A walk over all
//! descriptors takes 28 ms with 3000 sessions, and happens only for a listener or a connection that
//! is not known yet and that no young process holds.

mod holders;
pub mod net;
pub mod stat;
pub mod status;

use std::{io::Read, os::unix::fs::MetadataExt};

pub use self::holders::{holders, holders_among, nearest_holders};
use procfs::process::all_processes;

/// Maximum length of a kept argv in bytes: identifies the program without copying many of its
/// secrets.
pub const MAX_ARGV: usize = 160;

/// Most descriptors of a process that are read.
const MAX_DESCRIPTORS: usize = 65_536;

/// Open descriptors of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// Inodes of its sockets.
    pub sockets: Vec<u64>,
    /// It holds a regular file, besides its standard streams.
    pub has_files: bool,
}

/// Inodes of the sockets that a process holds.
#[must_use]
pub fn sockets(pid: u32) -> Vec<u64> {
    descriptors(pid).sockets
}

/// Descriptors of a process. The first thread can have ended, and its descriptors with it: then
/// they are read from another thread.
#[must_use]
pub fn descriptors(pid: u32) -> Descriptors {
    let found = read_descriptors(&format!("/proc/{pid}/fd")).unwrap_or_default();
    if !found.sockets.is_empty() || stat::read(pid).is_none_or(|stat| stat.threads <= 1) {
        return found;
    }
    let mut others =
        threads(pid).filter_map(|thread| read_descriptors(&format!("/proc/{pid}/task/{thread}/fd")));
    others.find(|found| !found.sockets.is_empty()).unwrap_or(found)
}

fn read_descriptors(directory: &str) -> Option<Descriptors> {
    let mut found = Descriptors::default();
    for entry in std::fs::read_dir(directory).ok()?.take(MAX_DESCRIPTORS).flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy();
        if let Some(inode) = socket_inode(&target) {
            found.sockets.push(inode);
        } else if is_file(&target) {
            let is_standard = entry.file_name().to_str().is_some_and(|fd| matches!(fd, "0" | "1" | "2"));
            found.has_files |= !is_standard;
        }
    }
    Some(found)
}

/// Whether the target of a descriptor's link is a file; devices do not count.
fn is_file(target: &str) -> bool {
    target.starts_with('/')
        && !["/dev/", "/proc/", "/sys/", "/memfd:"].iter().any(|dir| target.starts_with(dir))
}

/// The inode in the target of a descriptor's link, `socket:[4711]`.
fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Ids of the threads of a process.
fn threads(pid: u32) -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Ids of all processes.
pub fn pids() -> impl Iterator<Item = u32> {
    all_processes().into_iter().flatten().flatten().filter_map(|process| process.pid().try_into().ok())
}

/// Inode of a process's network namespace.
#[must_use]
pub fn network_namespace(pid: u32) -> Option<u32> {
    let inode = std::fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino();
    u32::try_from(inode).ok()
}

/// Command line of a process, separated by spaces, cut at [`MAX_ARGV`]; `None` if the process has
/// exited or has no memory. May wait for the process's memory lock: not for an event loop.
#[must_use]
pub fn argv(pid: u32) -> Option<String> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_ARGV).unwrap_or(u64::MAX) + 1;
    std::fs::File::open(format!("/proc/{pid}/cmdline")).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    readable_argv(&bytes)
}

fn readable_argv(bytes: &[u8]) -> Option<String> {
    let cut = bytes.len() > MAX_ARGV;
    let bytes = &bytes[..bytes.len().min(MAX_ARGV)];
    let mut text = String::from_utf8_lossy(bytes).replace('\0', " ").trim().to_owned();
    if cut {
        text.push('…');
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_count() {
        for (target, inode) in [("socket:[4711]", Some(4711)), ("pipe:[4711]", None), ("socket:[x]", None)] {
            assert_eq!(socket_inode(target), inode, "{target}");
        }
        for (target, file) in [("/home/a/state.sqlite", true), ("/dev/null", false), ("pipe:[1]", false)] {
            assert_eq!(is_file(target), file, "{target}");
        }
    }

    #[test]
    fn argv_is_cut_and_separated_by_spaces() {
        assert_eq!(
            readable_argv(b"node\0serve.js\0--port\x003773\0").as_deref(),
            Some("node serve.js --port 3773")
        );
        assert_eq!(readable_argv(b""), None);
        assert_eq!(readable_argv(b"\0\0"), None);
        let long = readable_argv(&[b'x'; MAX_ARGV + 1]).unwrap();
        assert!(long.ends_with('…') && long.chars().count() == MAX_ARGV + 1);
    }
}
