//! Ctrl-C during a long read: one line, and the end by the signal itself. A shell then has the exit
//! status 130 and also ends its own loop, which it does not for a program that exits by itself.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    thread,
    time::Duration,
};

use signal_hook::{consts::SIGINT, iterator::Signals, low_level::emulate_default_handler};

/// Limit of the wait for a signal that a child has already received.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Starts to watch for SIGINT. One that the parent ignores stays ignored: a shell ignores it for a
/// background process of a script.
pub fn watch() {
    if is_ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default()) {
        return;
    }
    // Without a handler the signal has its default action.
    let Ok(mut signals) = Signals::new([SIGINT]) else { return };
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            // There may be a progress line.
            let clear = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
            let _ = writeln!(io::stderr(), "{clear}t3-trace: interrupted; the output is not complete");
            let _ = emulate_default_handler(SIGINT);
        }
    });
}

/// Waits for the end by SIGINT after a child has ended by it: Ctrl-C in a terminal is for both, and
/// the error of the child is not the reason.
pub fn wait_after(signal: Option<i32>) {
    if signal == Some(SIGINT) {
        thread::sleep(SAME_SIGNAL);
    }
}

/// Whether SIGINT is ignored, by a `/proc/PID/status` (proc_pid_status(5)): a mask in hexadecimal,
/// whose lowest bit is signal 1.
fn is_ignored(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGINT - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_bit_is_sigint() {
        assert!(is_ignored("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001002\n"));
        assert!(!is_ignored("SigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n"));
        assert!(!is_ignored(""));
    }
}
