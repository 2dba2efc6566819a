//! Random sequences of changes, crashes and restarts against a map.

use proptest::{collection::vec, prelude::*};

use super::{Change, SpoolError, State, read, simulated::Disk};

const LIMIT: u64 = 2 * 8192;

#[derive(Debug, Clone)]
enum Step {
    Put(u8, usize),
    Remove(u8),
    Cursor(u16),
    Flush,
    Sync,
    Reopen,
    /// SIGKILL in the last write, after this many bytes of it.
    Kill(usize),
    /// Power loss: bit set of the sectors that reached the disk.
    PowerLoss(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..20_u8, 0..700_usize).prop_map(|(key, len)| Step::Put(key, len)),
        4 => (0..20_u8).prop_map(Step::Remove),
        1 => any::<u16>().prop_map(Step::Cursor),
        3 => Just(Step::Flush),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        1 => (0..800_usize).prop_map(Step::Kill),
        1 => any::<u64>().prop_map(Step::PowerLoss),
    ]
}

proptest! {
    #[test]
    fn any_sequence_equals_a_map(steps in vec(step(), 0..150)) {
        let mut disk = Disk::default();
        let (mut spool, mut state) = read(disk.files(), LIMIT);
        // Possible states after a power loss and after SIGKILL.
        let (mut since_sync, mut since_flush) = (vec![state.clone()], vec![state.clone()]);
        for (serial, step) in steps.into_iter().enumerate() {
            let change = match step {
                Step::Put(key, len) => Some(Change::put(key, len, serial)),
                Step::Remove(key) => Some(Change::remove(key)),
                Step::Cursor(number) => Some(Change::Cursor(format!("s=cursor;i={number}"))),
                _ => None,
            };
            if let Some(change) = change {
                let before = (spool.live_bytes(), spool.capacity());
                match change.to_spool(&mut spool) {
                    Ok(()) => change.to_state(&mut state),
                    Err(SpoolError::Full { .. }) => prop_assert!(before.0 + 800 > before.1, "{before:?}"),
                    Err(error) => panic!("{error:?}"),
                }
                since_flush.push(state.clone());
                since_sync.push(state.clone());
            }
            prop_assert!(spool.len() == state.entries.len());
            let files = match step {
                Step::Flush => {
                    spool.flush().unwrap();
                    since_flush = vec![state.clone()];
                    continue;
                }
                Step::Sync => {
                    spool.sync().unwrap();
                    since_flush = vec![state.clone()];
                    since_sync = vec![state.clone()];
                    continue;
                }
                Step::Reopen => {
                    spool.flush().unwrap();
                    since_flush = vec![state.clone()];
                    disk.cache()
                }
                // The whole last write: what is only pending is lost, what is flushed is not.
                Step::Kill(written) if written >= disk.last_write() => disk.cache(),
                Step::Kill(written) => {
                    // The write may be one that a flush confirmed: then it is a power loss.
                    since_flush.clone_from(&since_sync);
                    disk.killed(written)
                }
                Step::PowerLoss(reached) => {
                    since_flush.clone_from(&since_sync);
                    disk.power_lost(|sector| reached >> (sector % 64) & 1 == 1)
                }
                _ => continue,
            };
            // The new life begins with everything synced.
            disk = Disk::with(files);
            let found: State;
            (spool, found) = read(disk.files(), LIMIT);
            prop_assert!(since_flush.contains(&found), "{} entries", found.entries.len());
            state = found;
            since_flush = vec![state.clone()];
            since_sync = vec![state.clone()];
        }
        spool.sync().unwrap();
        let (again, found) = read(Disk::with(disk.synced()).files(), LIMIT);
        prop_assert_eq!(again.damage(), None);
        prop_assert_eq!(found, state);
    }

    #[test]
    fn any_bytes_are_opened(first in vec(any::<u8>(), 0..300), second in vec(any::<u8>(), 0..300)) {
        let (mut spool, state) = read(Disk::with([first, second]).files(), LIMIT);
        prop_assert_eq!(state, State::default());
        spool.put("conn", b"value").unwrap();
        spool.sync().unwrap();
    }
}
