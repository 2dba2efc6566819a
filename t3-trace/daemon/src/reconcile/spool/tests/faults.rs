//! Crashes at every step and errors of every step, in a sequence with several compactions.

use super::{
    Change, State, read,
    simulated::{Disk, SimulatedFile},
};
use crate::reconcile::spool::Spool;

const LIMIT: u64 = 2 * 4096;

/// Changes with values up to 400 bytes, for files of 4 KiB.
fn changes() -> Vec<Change> {
    let mut changes = Vec::new();
    for serial in 0..60_usize {
        let key = u8::try_from(serial * 5 % 7).unwrap();
        changes.push(match serial % 5 {
            4 => Change::remove(key),
            2 if serial % 3 == 0 => Change::Cursor(format!("s=cursor;i={serial}")),
            _ => Change::put(key, 100 + serial * 53 % 300, serial),
        });
    }
    changes
}

/// States after each change, and how many of the changes are flushed and synced.
struct Life {
    history: Vec<State>,
    flushed: usize,
    synced: usize,
    compactions: u64,
}

/// Applies the changes until the disk dies: a flush after every second one, a sync after every
/// fifth.
fn live(disk: &Disk, changes: &[Change]) -> Life {
    let (mut spool, state) = read(disk.files(), LIMIT);
    let mut life = Life { history: vec![state], flushed: 0, synced: 0, compactions: 0 };
    for (number, change) in changes.iter().enumerate() {
        let mut next = life.history[number].clone();
        change.to_state(&mut next);
        // Before the call: a crash in it may leave either state.
        life.history.push(next);
        let done = change.to_spool(&mut spool);
        if disk.is_dead() {
            break;
        }
        done.unwrap();
        if number % 2 == 1 && spool.flush().is_ok() {
            life.flushed = number + 1;
        }
        if number % 5 == 4 && spool.sync().is_ok() {
            (life.flushed, life.synced) = (number + 1, number + 1);
        }
        if disk.is_dead() {
            break;
        }
    }
    life.compactions = spool.header.generation;
    life
}

/// Some sets of sectors: all for a few sectors, else none, all, single ones and their complements.
fn sets(sectors: usize) -> Vec<Vec<bool>> {
    if sectors <= 8 {
        return (0..1_u32 << sectors)
            .map(|set| (0..sectors).map(|at| set >> at & 1 == 1).collect())
            .collect();
    }
    let mut sets = vec![vec![false; sectors], vec![true; sectors]];
    for at in 0..sectors {
        for value in [false, true] {
            let mut set = vec![!value; sectors];
            set[at] = value;
            sets.push(set);
        }
        sets.push((0..sectors).map(|other| other < at).collect());
    }
    sets
}

/// The spool continues: what it contains now and a new entry are there after a sync.
fn continues(mut spool: Spool<SimulatedFile>, disk: &Disk, mut state: State) {
    let change = Change::put(99, 50, 99);
    change.to_state(&mut state);
    change.to_spool(&mut spool).unwrap();
    spool.sync().unwrap();
    let again = read(Disk::with(disk.synced()).files(), LIMIT);
    assert_eq!(again.0.damage(), None);
    assert_eq!(again.1, state);
}

#[test]
fn after_a_crash_at_any_step_a_prefix_with_all_synced_changes_is_left() {
    let changes = changes();
    let healthy = Disk::default();
    let whole = live(&healthy, &changes);
    assert!(whole.compactions >= 4, "only {} generations", whole.compactions);
    assert_eq!(read(Disk::with(healthy.synced()).files(), LIMIT).1, *whole.history.last().unwrap());

    let mut images = 0;
    for step in 0..healthy.steps() {
        let disk = Disk::default().dies_at(step);
        let life = live(&disk, &changes);
        assert!(disk.is_dead());
        let mut check = |files: [Vec<u8>; 2], from: usize, what: &str| {
            images += 1;
            let disk = Disk::with(files);
            let (spool, state) = read(disk.files(), LIMIT);
            let found = life.history[from..].contains(&state);
            assert!(found, "{what} at step {step}: {} entries", state.entries.len());
            continues(spool, &disk, state);
        };
        let last = disk.last_write();
        let cut = |at: &usize| *at == last || disk.died_in_write() && at.is_multiple_of(5);
        for written in (0..=last).filter(cut) {
            check(disk.killed(written), life.flushed, "killed");
        }
        for set in sets(disk.unsynced()) {
            check(disk.power_lost(|sector| set[sector]), life.synced, "power loss");
        }
    }
    assert!(images > 4_000, "only {images} images");
}

#[test]
fn after_an_error_of_any_step_nothing_is_lost() {
    let changes = changes();
    let healthy = Disk::default();
    live(&healthy, &changes);
    for first in 0..healthy.steps() {
        for distance in [0, 1, 2, 5] {
            let disk = Disk::default().fails_at(vec![first, first + distance]);
            let (mut spool, mut state) = read(disk.files(), LIMIT);
            for (number, change) in changes.iter().enumerate() {
                let done = change.to_spool(&mut spool);
                if done.is_ok() || matches!(change, Change::Remove(_)) {
                    change.to_state(&mut state);
                }
                let _ = if number % 5 == 4 { spool.sync() } else { spool.flush() };
            }
            while spool.sync().is_err() {}
            assert_eq!(spool.damage(), None);
            let (again, found) = read(Disk::with(disk.synced()).files(), LIMIT);
            assert_eq!(again.damage(), None, "errors at {first} and {distance} later");
            assert_eq!(found, state, "errors at {first} and {distance} later");
        }
    }
}
