//! Descriptors of a child at the numbers from 3 on (sd_listen_fds(3)).

#![expect(unsafe_code, reason = "dup2 and fcntl have to be called between fork and exec")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{fd::RawFd, unix::process::CommandExt},
    process::Command,
};

/// Number of the first passed descriptor (`SD_LISTEN_FDS_START`).
pub(super) const FIRST: RawFd = 3;

/// A step between fork and exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The descriptor has its number and stays open after exec.
    Keep(RawFd),
    /// It gets this number and stays open after exec.
    Move { from: RawFd, to: RawFd },
    /// It gets this number until exec.
    Save { from: RawFd, to: RawFd },
}

/// Steps by which the descriptors get the numbers from [`FIRST`] on, in order. No step overwrites a
/// descriptor that a later one needs: `spare` is a free number, and holds one of each cycle.
pub(super) fn steps(sources: &[RawFd], spare: RawFd) -> Vec<Step> {
    let mut steps = Vec::with_capacity(sources.len());
    // Target and source of each pending move.
    let mut pending: BTreeMap<RawFd, RawFd> = BTreeMap::new();
    for (to, from) in (FIRST..).zip(sources) {
        if to == *from {
            steps.push(Step::Keep(to));
        } else {
            pending.insert(to, *from);
        }
    }
    // Each source has one target.
    let mut target_of: BTreeMap<RawFd, RawFd> = pending.iter().map(|(to, from)| (*from, *to)).collect();
    let mut free: Vec<RawFd> = pending.keys().copied().filter(|to| !target_of.contains_key(to)).collect();
    loop {
        while let Some(to) = free.pop() {
            let Some(from) = pending.remove(&to) else { continue };
            steps.push(Step::Move { from, to });
            target_of.remove(&from);
            if pending.contains_key(&from) {
                free.push(from);
            }
        }
        // Only cycles are left.
        let Some((&to, _)) = pending.first_key_value() else { return steps };
        steps.push(Step::Save { from: to, to: spare });
        if let Some(waiting) = target_of.remove(&to) {
            pending.insert(waiting, spare);
            target_of.insert(spare, waiting);
        }
        free.push(to);
    }
}

/// A number that is neither a source nor a target.
pub(super) fn spare(sources: &[RawFd]) -> RawFd {
    let used: BTreeSet<RawFd> = sources.iter().copied().collect();
    let end = FIRST.saturating_add(RawFd::try_from(sources.len()).unwrap_or(RawFd::MAX - FIRST));
    (end..).find(|number| !used.contains(number)).unwrap_or(end)
}

/// Takes these steps in the child. A failure ends the child: the descriptor by which the standard
/// library reports one to the parent may be overwritten.
pub(super) fn passes(command: &mut Command, steps: Vec<Step>) {
    let step = move || {
        for step in &steps {
            // SAFETY: fcntl, dup2 and dup3 on descriptors of this process, which has one thread;
            // a descriptor of the parent is not affected.
            let result = unsafe {
                match *step {
                    Step::Keep(fd) => libc::fcntl(fd, libc::F_SETFD, 0),
                    Step::Move { from, to } => libc::dup2(from, to),
                    Step::Save { from, to } => libc::dup3(from, to, libc::O_CLOEXEC),
                }
            };
            if result < 0 {
                // SAFETY: ends this process without handlers.
                unsafe { libc::_exit(127) };
            }
        }
        io::Result::Ok(())
    };
    // SAFETY: the closure calls only async-signal-safe functions and allocates nothing.
    unsafe { command.pre_exec(step) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The descriptors by number after these steps; each is called by its first number.
    fn run(sources: &[RawFd], steps: &[Step]) -> BTreeMap<RawFd, RawFd> {
        let mut table: BTreeMap<RawFd, RawFd> = sources.iter().map(|fd| (*fd, *fd)).collect();
        for step in steps {
            if let Step::Move { from, to } | Step::Save { from, to } = *step {
                table.insert(to, table[&from]);
            }
        }
        table
    }

    #[test]
    fn each_descriptor_gets_its_number_whatever_the_numbers_were() {
        let cases: &[&[RawFd]] = &[
            &[],
            &[3],
            &[9],
            &[3, 4, 5],
            &[4, 5, 6],
            &[10, 3, 4],
            &[4, 3],
            &[5, 3, 4],
            &[4, 3, 6, 5, 30],
            &[20, 21, 3],
            &[7, 3, 9, 4, 8],
        ];
        for sources in cases {
            let spare = spare(sources);
            let targets = FIRST..FIRST + RawFd::try_from(sources.len()).unwrap();
            assert!(!sources.contains(&spare) && !targets.contains(&spare), "{sources:?}");
            let steps = steps(sources, spare);
            let table = run(sources, &steps);
            let passed: Vec<RawFd> = (FIRST..).take(sources.len()).map(|number| table[&number]).collect();
            assert_eq!(&passed, sources, "{steps:?}");
            let opened = |to: &RawFd| {
                steps
                    .iter()
                    .any(|step| matches!(step, Step::Keep(fd) | Step::Move { to: fd, .. } if fd == to))
            };
            assert!((FIRST..).take(sources.len()).all(|number| opened(&number)), "{steps:?}");
        }
    }

    #[test]
    fn many_in_reverse_order() {
        let sources: Vec<RawFd> = (3..2003).rev().collect();
        let table = run(&sources, &steps(&sources, spare(&sources)));
        assert!(sources.iter().zip(FIRST..).all(|(source, number)| table[&number] == *source));
    }
}
