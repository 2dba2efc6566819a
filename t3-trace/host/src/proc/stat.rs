//! `/proc/PID/stat` (proc_pid_stat(5)): identity, state and exit status of a process.

use t3_record::evidence::{Fate, Nanos};

use crate::small_file;

/// Fields of the line that are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// First 15 bytes of the name.
    pub comm: String,
    /// One letter: R, S, D, T, t, Z ...
    pub state: char,
    /// Field 4: id of the parent; 0 for the first process of a pid namespace.
    pub parent: u32,
    /// Field 20: threads that have not ended, and the first one until it is reaped.
    pub threads: u32,
    /// Field 22: start time in clock ticks of `CLOCK_BOOTTIME`. Together with the pid it identifies
    /// a process.
    pub start_ticks: u64,
    /// Field 52, encoded as in waitpid; meaningful only for a zombie, and zero for a reader without
    /// ptrace access.
    pub exit_code: i32,
}

impl Stat {
    /// Whether a signal or a tracer stopped the process.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    /// Whether the process has ended (zombie or dead).
    #[must_use]
    pub fn is_over(&self) -> bool {
        is_over(self.state)
    }

    /// Exit status or signal of a process that has ended.
    #[must_use]
    pub fn fate(&self) -> Option<Fate> {
        if !self.is_over() {
            return None;
        }
        Some(match self.exit_code & 0x7f {
            0 => Fate::Exit((self.exit_code >> 8) & 0xff),
            signal => Fate::Signal(signal),
        })
    }

    /// Start time in nanoseconds of `CLOCK_BOOTTIME`, rounded down to a clock tick.
    #[must_use]
    pub fn started_boot_ns(&self) -> Nanos {
        self.start_ticks.saturating_mul(tick_ns())
    }
}

/// Length of a clock tick in nanoseconds.
#[must_use]
pub fn tick_ns() -> Nanos {
    1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// Reads the line of one process; `None` if it does not exist or is not readable.
///
/// The line has the state of the first thread, which can end while the process lives: then the
/// state is that of a thread that has not ended.
#[must_use]
pub fn read(pid: u32) -> Option<Stat> {
    let mut stat = read_line(&format!("/proc/{pid}/stat"))?;
    if stat.is_over() && stat.threads > 1 {
        stat.state = living_thread(pid).unwrap_or(stat.state);
    }
    Some(stat)
}

fn read_line(path: &str) -> Option<Stat> {
    parse(&small_file::text(path).ok()?)
}

/// State of a thread that has not ended.
fn living_thread(pid: u32) -> Option<char> {
    let threads =
        super::threads(pid).filter_map(|thread| read_line(&format!("/proc/{pid}/task/{thread}/stat")));
    threads.map(|stat| stat.state).find(|state| !is_over(*state))
}

fn is_over(state: char) -> bool {
    matches!(state, 'Z' | 'X' | 'x')
}

/// Parses one line. The name is in parentheses and may itself contain spaces and parentheses.
#[must_use]
pub fn parse(line: &str) -> Option<Stat> {
    let (_, rest) = line.split_once('(')?;
    let (comm, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The first of these is field 3.
    Some(Stat {
        comm: comm.to_owned(),
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        threads: fields.get(17)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
        exit_code: fields.get(49).and_then(|code| code.parse().ok()).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(comm: &str, state: char, exit_code: i32) -> String {
        let field = |n: i64| match n {
            4 => "1".to_owned(),
            22 => "98765".to_owned(),
            n => (n - 17).to_string(),
        };
        let middle: Vec<String> = (4..=51).map(field).collect();
        format!("17 ({comm}) {state} {} {exit_code}\n", middle.join(" "))
    }

    #[test]
    fn a_name_may_contain_spaces_and_parentheses() {
        for comm in ["node", "a b", "2.1.205", ") R 1 (", "((("] {
            let stat = parse(&line(comm, 'S', 0)).unwrap();
            assert_eq!((stat.comm.as_str(), stat.state, stat.start_ticks), (comm, 'S', 98765), "{comm}");
            assert_eq!((stat.parent, stat.threads), (1, 3), "{comm}");
            assert_eq!(stat.fate(), None);
        }
    }

    #[test]
    fn a_zombie_has_an_exit_status() {
        assert_eq!(parse(&line("node", 'Z', 9)).unwrap().fate(), Some(Fate::Signal(9)));
        assert_eq!(parse(&line("node", 'Z', 1 << 8)).unwrap().fate(), Some(Fate::Exit(1)));
        assert_eq!(parse(&line("node", 'Z', 0x80 | 6)).unwrap().fate(), Some(Fate::Signal(6)));
    }

    #[test]
    fn a_truncated_line_is_rejected() {
        let line = line("node", 'S', 0);
        for end in 0..40 {
            assert_eq!(parse(&line[..end]), None, "{end}");
        }
    }

    #[test]
    fn this_process_runs_and_started_in_the_past() {
        let us = read(std::process::id()).unwrap();
        assert!(!us.is_stopped() && !us.is_over());
        let started = crate::clock::from_boottime(us.started_boot_ns());
        assert!(started < crate::clock::monotonic());
        assert_eq!(read(u32::MAX), None);
    }
}
