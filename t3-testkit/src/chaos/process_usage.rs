//! Memory and descriptors of a process, from procfs.

use std::fs;

use serde::Serialize;

/// A sample of a process.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Held {
    /// Resident memory in KiB.
    pub rss_kib: u64,
    /// The part of it that is not in a file.
    pub anonymous_kib: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

/// Samples a process; zeros after its end.
#[must_use]
pub fn sample(pid: u32) -> Held {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    Held { rss_kib: kib("VmRSS:"), anonymous_kib: kib("RssAnon:"), descriptors }
}
