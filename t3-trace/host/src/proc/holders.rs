//! Processes that hold sockets, found by their descriptors.
//!
//! Limit of [`nearest_holders`]: a child that inherited a socket and has left the cgroup and the
//! ancestors of the process that opened it can be found alone.

use std::collections::{HashMap, HashSet};

/// Processes that hold one of these sockets (inode numbers) open. Reads the descriptors of all
/// processes: with tens of thousands of them this takes a good part of a second.
#[must_use]
pub fn holders(inodes: &HashSet<u64>) -> HashMap<u64, Vec<u32>> {
    holders_among(super::pids(), inodes)
}

/// As [`holders`], among these processes.
#[must_use]
pub fn holders_among(pids: impl IntoIterator<Item = u32>, inodes: &HashSet<u64>) -> HashMap<u64, Vec<u32>> {
    let mut search = Search::new(inodes, super::sockets);
    for pid in pids {
        search.read(pid);
    }
    search.finish()
}

/// As [`holders`], first of the processes `likely` and then from the youngest one on, until each
/// socket has a holder, and the others that hold it: a new serve is found without reading the
/// descriptors of a proxy with ten thousand connections.
///
/// `related` names the processes that may hold the sockets of a process, too; `None`: it is not
/// known which, so all are read.
#[must_use]
pub fn nearest_holders(
    inodes: &HashSet<u64>,
    likely: &[u32],
    related: impl Fn(u32) -> Option<Vec<u32>>,
) -> HashMap<u64, Vec<u32>> {
    nearest(likely, super::pids, Search::new(inodes, super::sockets), related)
}

fn nearest<F: FnMut(u32) -> Vec<u64>, I: Iterator<Item = u32>>(
    likely: &[u32],
    pids: impl FnOnce() -> I,
    mut search: Search<'_, F>,
    related: impl Fn(u32) -> Option<Vec<u32>>,
) -> HashMap<u64, Vec<u32>> {
    // Ids are given in ascending order; after the highest one the order is only less useful.
    let youngest_first = |mut pids: Vec<u32>| {
        pids.sort_unstable_by(|a, b| b.cmp(a));
        pids
    };
    let all = std::iter::once_with(|| youngest_first(pids().collect())).flatten();
    let mut reads_all = false;
    for pid in youngest_first(likely.to_vec()).into_iter().chain(all) {
        if search.is_complete() && !reads_all {
            break;
        }
        if search.read(pid) {
            match related(pid) {
                Some(others) => {
                    for other in others {
                        search.read(other);
                    }
                }
                None => reads_all = true,
            }
        }
    }
    search.finish()
}

struct Search<'a, F> {
    inodes: &'a HashSet<u64>,
    sockets_of: F,
    visited: HashSet<u32>,
    found: HashMap<u64, Vec<u32>>,
}

impl<'a, F: FnMut(u32) -> Vec<u64>> Search<'a, F> {
    fn new(inodes: &'a HashSet<u64>, sockets_of: F) -> Self {
        Self { inodes, sockets_of, visited: HashSet::new(), found: HashMap::new() }
    }

    /// Reads a process, once; returns whether it is a holder that was not known.
    fn read(&mut self, pid: u32) -> bool {
        if !self.visited.insert(pid) {
            return false;
        }
        let sockets: HashSet<u64> = (self.sockets_of)(pid).into_iter().collect();
        let mut is_holder = false;
        for inode in sockets.intersection(self.inodes) {
            self.found.entry(*inode).or_default().push(pid);
            is_holder = true;
        }
        is_holder
    }

    fn is_complete(&self) -> bool {
        self.found.len() == self.inodes.len()
    }

    /// Holders of each socket in the order of their ids.
    fn finish(mut self) -> HashMap<u64, Vec<u32>> {
        self.found.values_mut().for_each(|pids| pids.sort_unstable());
        self.found
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::proc::net;

    /// Holders that are found, and the processes that are read for it.
    fn search(
        processes: &[(u32, &[u64])],
        likely: &[u32],
        inodes: &[u64],
        related: impl Fn(u32) -> Option<Vec<u32>>,
    ) -> (Vec<(u64, Vec<u32>)>, Vec<u32>) {
        let read = RefCell::new(Vec::new());
        let sockets_of = |pid| {
            read.borrow_mut().push(pid);
            processes
                .iter()
                .find(|(known, _)| *known == pid)
                .map(|(_, sockets)| sockets.to_vec())
                .unwrap_or_default()
        };
        let inodes = inodes.iter().copied().collect();
        let pids = || processes.iter().map(|(pid, _)| *pid);
        let mut found: Vec<_> =
            nearest(likely, pids, Search::new(&inodes, sockets_of), related).into_iter().collect();
        found.sort_unstable();
        (found, read.into_inner())
    }

    const PROCESSES: [(u32, &[u64]); 5] =
        [(1, &[7]), (20, &[1, 2, 3, 4, 5, 6]), (30, &[7, 8]), (31, &[8]), (40, &[9])];

    #[test]
    fn the_search_ends_with_the_holders_and_their_relatives() {
        let (found, read) = search(&PROCESSES, &[], &[7], |_| Some(vec![1]));
        assert_eq!((found, read), (vec![(7, vec![1, 30])], vec![40, 31, 30, 1]));
        let (found, read) = search(&PROCESSES, &[], &[8, 9], |_| Some(vec![30, 31]));
        assert_eq!(found, [(8, vec![30, 31]), (9, vec![40])]);
        assert_eq!(read, [40, 30, 31], "none twice");
    }

    #[test]
    fn a_likely_holder_is_read_first_with_its_relatives() {
        let (found, read) = search(&PROCESSES, &[30, 99], &[7], |_| Some(vec![1]));
        assert_eq!((found, read), (vec![(7, vec![1, 30])], vec![99, 30, 1]));
        let (found, read) = search(&PROCESSES, &[20], &[9], |_| Some(Vec::new()));
        assert_eq!((found, read), (vec![(9, vec![40])], vec![20, 40]), "a wrong one costs its own reading");
    }

    #[test]
    fn without_known_relatives_or_holders_all_processes_are_read() {
        let (found, read) = search(&PROCESSES, &[], &[7], |_| None);
        assert_eq!((found, read.len()), (vec![(7, vec![1, 30])], 5));
        let (found, read) = search(&PROCESSES, &[], &[7, 99], |_| Some(Vec::new()));
        assert_eq!((found, read.len()), (vec![(7, vec![1, 30])], 5));
        assert_eq!(search(&PROCESSES, &[], &[], |_| None), (Vec::new(), Vec::new()));
    }

    #[test]
    fn only_sockets_have_holders() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let pipe = rustix::fs::fstat(&reader).unwrap().st_ino;
        assert_eq!(holders(&HashSet::from([pipe])), HashMap::new());
    }

    #[test]
    fn the_holder_of_a_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let listening = net::listening(std::process::id());
        let inodes: HashSet<u64> = listening[&port].iter().copied().collect();
        assert_eq!(inodes.len(), 1);
        for found in [holders(&inodes), nearest_holders(&inodes, &[], |_| None)] {
            assert_eq!(found.values().flatten().collect::<Vec<_>>(), [&std::process::id()]);
        }
    }
}
