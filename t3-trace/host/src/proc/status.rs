//! `/proc/PID/status` (fs/proc/array.c).

use crate::small_file;

/// Whether the process has its fatal signal and has not ended: it writes a core dump
/// (`CoreDumping`, kernel 4.15 and newer), or SIGKILL is pending, which the kernel makes of every
/// other fatal signal (kernel/signal.c, `complete_signal`). Its sockets stay open until the end.
#[must_use]
pub fn is_dying(pid: u32) -> bool {
    small_file::text(format!("/proc/{pid}/status")).is_ok_and(|text| has_fatal_signal(&text))
}

fn has_fatal_signal(text: &str) -> bool {
    const SIGKILL: u64 = 1 << 8;
    text.lines().filter_map(|line| line.split_once(':')).any(|(key, value)| match key {
        "CoreDumping" => value.trim() == "1",
        "SigPnd" => u64::from_str_radix(value.trim(), 16).is_ok_and(|pending| pending & SIGKILL != 0),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::{has_fatal_signal, is_dying};

    #[test]
    fn a_dump_and_a_pending_sigkill_are_fatal() {
        assert!(has_fatal_signal("Name:\tnode\nCoreDumping:\t1\nTHP_enabled:\t1\n"));
        assert!(has_fatal_signal("Name:\tnode\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000004000\n"));
        // A program can name itself, and SIGTERM can be handled.
        for text in
            ["Name:\tCoreDumping: 1\nCoreDumping:\t0\n", "Name:\tx\n", "SigPnd:\t0000000000004000\n", ""]
        {
            assert!(!has_fatal_signal(text), "{text:?}");
        }
        assert!(!is_dying(std::process::id()));
    }
}
