//! Tests of the spool: a simulated disk with crashes and errors, damage, and real files.

mod damage;
mod disk;
mod faults;
mod model;
mod simulated;

use std::collections::BTreeMap;

use super::{LogFile, Spool, SpoolError};

type Entries = BTreeMap<String, Vec<u8>>;

/// What a spool is expected to contain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    entries: Entries,
    cursor: Option<String>,
}

/// One change.
#[derive(Debug, Clone)]
enum Change {
    Put(String, Vec<u8>),
    Remove(String),
    Cursor(String),
}

impl Change {
    /// The same number gives the same key; the value depends on `serial`.
    fn put(key: u8, len: usize, serial: usize) -> Self {
        let value = (0..len).map(|at| u8::try_from((at * 7 + serial * 31) % 251).unwrap()).collect();
        Self::Put(format!("conn-{key}"), value)
    }

    fn remove(key: u8) -> Self {
        Self::Remove(format!("conn-{key}"))
    }

    fn to_state(&self, state: &mut State) {
        match self.clone() {
            Self::Put(key, value) => drop(state.entries.insert(key, value)),
            Self::Remove(key) => drop(state.entries.remove(&key)),
            Self::Cursor(cursor) => state.cursor = Some(cursor),
        }
    }

    fn to_spool<F: LogFile>(&self, spool: &mut Spool<F>) -> Result<(), SpoolError> {
        match self {
            Self::Put(key, value) => spool.put(key, value),
            Self::Remove(key) => spool.remove(key),
            Self::Cursor(cursor) => spool.set_cursor(cursor),
        }
    }
}

/// Opens the files and returns what they contain.
fn read<F: LogFile>(files: [F; 2], limit: u64) -> (Spool<F>, State) {
    let (spool, entries) = Spool::over(files, limit).unwrap();
    assert_eq!(spool.len(), entries.len());
    let state = State { entries, cursor: spool.cursor().map(str::to_owned) };
    (spool, state)
}
