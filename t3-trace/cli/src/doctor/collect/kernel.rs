//! Facts of the kernel: release, BTF, lockdown, and hooks: from the daemon, else by a test, else
//! from BTF.

use std::{fs, io::ErrorKind};

use t3_trace_host::kernel::{self as side, Options, VMLINUX};

use super::{
    super::facts::{Daemon, Hooks, Kernel, Presence},
    limits,
};

pub(super) fn read(daemon: &Daemon, pid: Option<u32>, root: bool) -> Kernel {
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").ok();
    Kernel {
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        btf: btf(),
        lockdown: lockdown.as_deref().and_then(mode),
        memlock: limits::memlock(pid),
        hooks: hooks(daemon, root),
    }
}

fn btf() -> Presence {
    match fs::File::open(VMLINUX) {
        Ok(_) => Presence::Present,
        Err(error) if error.kind() == ErrorKind::NotFound => Presence::Missing,
        Err(error) => Presence::Unreadable(error.to_string()),
    }
}

/// Mode in brackets: `none [integrity] confidentiality`.
fn mode(lockdown: &str) -> Option<String> {
    let word = lockdown.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?;
    Some(word.to_owned())
}

fn hooks(daemon: &Daemon, root: bool) -> Hooks {
    let text = |error: side::KernelError| format!("{:#}", anyhow::Error::from(error));
    match daemon {
        Daemon::Answers(status) => Hooks::Running(status.hooks.clone()),
        // Detached when this value is dropped, immediately. Small maps: nothing is watched.
        Daemon::Absent if root => {
            let small = Options { sockets: 16, processes: 16, ring_bytes: 1 << 16, ..Options::default() };
            Hooks::Tried(side::Kernel::load(&small).map(|kernel| kernel.hooks().to_vec()).map_err(text))
        }
        _ => Hooks::Offered(side::offered().map_err(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_in_brackets_counts() {
        assert_eq!(mode("[none] integrity confidentiality\n").as_deref(), Some("none"));
        assert_eq!(mode("none integrity [confidentiality]\n").as_deref(), Some("confidentiality"));
        assert_eq!(mode(""), None);
    }
}
