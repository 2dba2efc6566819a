//! `/proc/PID/status` (fs/proc/array.c).

use std::fs;

/// Whether the process writes a core dump now (`CoreDumping`, kernel 4.15 and newer): it has its fatal
/// signal, and its sockets stay open until the dump is complete.
#[must_use]
pub fn is_dumping_core(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| has_core_dumping(&text))
}

fn has_core_dumping(text: &str) -> bool {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(key, value)| key == "CoreDumping" && value.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::{has_core_dumping, is_dumping_core};

    #[test]
    fn only_a_one_means_a_dump() {
        assert!(has_core_dumping("Name:\tnode\nCoreDumping:\t1\nTHP_enabled:\t1\n"));
        // A program can name itself.
        for text in ["Name:\tCoreDumping: 1\nCoreDumping:\t0\n", "Name:\tx\n", ""] {
            assert!(!has_core_dumping(text), "{text:?}");
        }
        assert!(!is_dumping_core(std::process::id()));
    }
}
