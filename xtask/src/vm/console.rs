//! Detects on a guest's serial console that the guest cannot continue.

/// The kernel met a breakpoint that it had already taken back. It patches its own code (static
/// keys, tracepoints) with breakpoints while other CPUs run; qemu's multi-threaded emulation can
/// run an old translation of such a place. A crash that the programs under test cause has another
/// message.
pub const STALE_BREAKPOINT: &str = "the emulator ran a breakpoint that the kernel had removed (oops)";

/// (console text, reason) of fatal kernel and boot errors. The first one that fits counts.
const FATAL: [(&str, &str); 8] = [
    ("Oops: int3", STALE_BREAKPOINT),
    ("Kernel panic - not syncing", "the kernel panicked"),
    ("BUG: soft lockup", "a CPU of the guest is locked up"),
    ("Oops: ", "the kernel crashed (oops)"),
    ("general protection fault", "the kernel crashed"),
    ("Unable to mount root fs", "the root file system cannot be mounted"),
    ("You are in emergency mode", "systemd gave up booting"),
    ("Gave up waiting for root file system device", "the root disk did not appear"),
];
/// Emulated CPUs share the host: the host can cause one lockup report, but not several.
const FATAL_LOCKUPS: u32 = 3;

/// Follows one console.
#[derive(Debug, Default)]
pub struct Watch {
    partial: String,
    lockups: u32,
}

impl Watch {
    /// Reads the next piece of the console; returns the fatal error, if there is one.
    pub fn feed(&mut self, piece: &str) -> Option<&'static str> {
        self.partial.push_str(piece);
        let end = self.partial.rfind('\n').map_or(0, |at| at + 1);
        let lines: String = self.partial.drain(..end).collect();
        lines.lines().find_map(|line| self.judge(line))
    }

    fn judge(&mut self, line: &str) -> Option<&'static str> {
        let (sign, meaning) = FATAL.iter().find(|(sign, _)| line.contains(sign))?;
        if sign.contains("lockup") {
            self.lockups += 1;
            return (self.lockups >= FATAL_LOCKUPS).then_some(meaning);
        }
        Some(meaning)
    }
}

#[cfg(test)]
mod tests {
    use super::{STALE_BREAKPOINT, Watch};

    #[test]
    fn a_panic_is_detected_across_pieces() {
        let mut watch = Watch::default();
        assert_eq!(watch.feed("[ 1.0] fine\n[ 2.0] Kernel pan"), None);
        assert_eq!(watch.feed("ic - not syncing: Attempted to kill init!"), None);
        assert_eq!(watch.feed("\n"), Some("the kernel panicked"));
    }

    #[test]
    fn only_an_oops_at_a_breakpoint_is_the_fault_of_the_emulator() {
        let judge = |line: &str| Watch::default().feed(&format!("[  286.2] {line}\n"));
        assert_eq!(judge("Oops: int3: 0000 [#1] PREEMPT SMP NOPTI"), Some(STALE_BREAKPOINT));
        assert_eq!(judge("Oops: 0002 [#1] PREEMPT SMP NOPTI"), Some("the kernel crashed (oops)"));
        assert_eq!(judge("Oops: invalid opcode: 0000 [#1]"), Some("the kernel crashed (oops)"));
    }

    #[test]
    fn ordinary_lines_are_not_fatal() {
        let mut watch = Watch::default();
        assert_eq!(
            watch.feed("panic=-1 console=ttyS0\nstarted Oopsie\nReached target Multi-User System.\n"),
            None
        );
    }

    #[test]
    fn three_soft_lockups_are_fatal_and_one_is_not() {
        let mut watch = Watch::default();
        let line = "watchdog: BUG: soft lockup - CPU#1 stuck for 48s!\n";
        assert_eq!(watch.feed(line), None);
        assert_eq!(watch.feed(line), None);
        assert!(watch.feed(line).is_some());
    }
}
