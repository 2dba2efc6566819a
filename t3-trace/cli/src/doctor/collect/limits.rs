//! `RLIMIT_MEMLOCK` of the daemon, or of this process without one.

use rustix::process::{Resource, getrlimit};

use super::super::facts::Memlock;

pub(super) fn memlock(daemon: Option<u32>) -> Option<Memlock> {
    let limits = daemon.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/limits")).ok());
    match limits.as_deref().and_then(parse) {
        Some(bytes) => Some(Memlock { of_daemon: true, bytes }),
        None => Some(Memlock { of_daemon: false, bytes: getrlimit(Resource::Memlock).current }),
    }
}

/// Soft limit in `/proc/PID/limits`; the inner `None` is unlimited.
fn parse(limits: &str) -> Option<Option<u64>> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let text = "Limit    Soft Limit  Hard Limit  Units\nMax locked memory         65536                8388608              bytes\n";
        assert_eq!(parse(text), Some(Some(65536)));
        assert_eq!(
            parse("Max locked memory         unlimited            unlimited            bytes\n"),
            Some(None)
        );
        assert_eq!(parse("Max open files 1 1 files"), None);
        assert!(
            memlock(Some(std::process::id())).unwrap().of_daemon,
            "procfs has the limits of this process"
        );
    }
}
