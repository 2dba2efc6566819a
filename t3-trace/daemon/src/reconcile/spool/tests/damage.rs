//! Damaged files: truncated and flipped at every byte.

use super::{Change, State, read, simulated::Disk};
use crate::reconcile::spool::{Damage, log::FRAME_LEN};

const LIMIT: u64 = 2 * 4096;

/// A synced log of one generation: its files, and after each change its end and the state.
fn log() -> ([Vec<u8>; 2], Vec<(u64, State)>) {
    let disk = Disk::default();
    let (mut spool, mut state) = read(disk.files(), LIMIT);
    // Two processes: an epoch record is in the middle.
    let mut ends = Vec::new();
    for serial in 0..12_u8 {
        let change = match serial {
            5 => Change::Cursor("s=cursor;i=5".to_owned()),
            8 => Change::remove(3),
            _ => Change::put(serial % 5, 40, serial.into()),
        };
        if serial == 6 {
            spool = read(disk.files(), LIMIT).0;
        }
        change.to_spool(&mut spool).unwrap();
        change.to_state(&mut state);
        spool.sync().unwrap();
        ends.push((spool.end, state.clone()));
    }
    assert_eq!(spool.header.generation, 1);
    (disk.synced(), ends)
}

/// Opens the files: exactly the changes before `offset` are there, and new ones are possible.
fn check(files: [Vec<u8>; 2], ends: &[(u64, State)], offset: u64, what: &str) {
    let disk = Disk::with(files);
    let (mut spool, mut state) = read(disk.files(), LIMIT);
    let expected =
        ends.iter().rfind(|(end, _)| *end <= offset).map_or_else(State::default, |(_, state)| state.clone());
    assert_eq!(state, expected, "{what} at {offset}");
    let end = ends.last().unwrap().0 + FRAME_LEN as u64;
    assert_eq!(spool.damage().is_some(), offset < end, "{what} at {offset}: {:?}", spool.damage());

    let change = Change::put(50, 60, 1);
    change.to_spool(&mut spool).unwrap();
    change.to_state(&mut state);
    spool.sync().unwrap();
    let (_, found) = read(Disk::with(disk.synced()).files(), LIMIT);
    assert_eq!(found, state, "{what} at {offset}, after a further entry");
}

#[test]
fn after_a_flipped_bit_the_entries_before_it_are_left() {
    let (files, ends) = log();
    check(files.clone(), &ends, 4096, "nothing flipped");
    let all = ends.last().unwrap().0 + 100;
    for offset in 0..usize::try_from(all).unwrap() {
        for bit in [0, 3, 7] {
            let mut files = files.clone();
            files[0][offset] ^= 1 << bit;
            check(files, &ends, offset as u64, "flipped");
        }
    }
}

#[test]
fn after_a_truncation_the_entries_before_it_are_left() {
    let (files, ends) = log();
    let all = ends.last().unwrap().0 + 100;
    // Without a byte of the header the file is as one that was never written.
    for offset in 1..usize::try_from(all).unwrap() {
        let mut files = files.clone();
        files[0].truncate(offset);
        check(files, &ends, offset as u64, "truncated");
    }
}

#[test]
fn with_a_damaged_header_the_older_file_is_used_and_the_damage_reported() {
    let disk = Disk::default();
    let (mut spool, mut state) = read(disk.files(), LIMIT);
    let mut older = None;
    for serial in 0..40 {
        let (generation, before) = (spool.header.generation, state.clone());
        let change = Change::put(u8::try_from(serial % 3).unwrap(), 200, serial);
        change.to_spool(&mut spool).unwrap();
        change.to_state(&mut state);
        spool.sync().unwrap();
        if spool.header.generation == 2 && generation == 1 {
            older = Some(before);
        }
        if spool.header.generation == 2 {
            break;
        }
    }
    let mut files = disk.synced();
    assert_eq!(read(Disk::with(files.clone()).files(), LIMIT).1, state);
    files[1][9] ^= 1;
    let (spool, found) = read(Disk::with(files).files(), LIMIT);
    assert_eq!(spool.damage(), Some(Damage { file: "spool-b", offset: 0 }));
    assert_eq!(Some(found), older);
}

#[test]
fn an_entry_that_is_damaged_later_is_left_out_of_the_compaction() {
    let disk = Disk::default();
    let (mut spool, mut state) = read(disk.files(), LIMIT);
    for serial in 0..3 {
        let change = Change::put(u8::try_from(serial).unwrap(), 200, serial);
        change.to_spool(&mut spool).unwrap();
        change.to_state(&mut state);
    }
    spool.sync().unwrap();
    let mut files = disk.synced();
    files[0][100] ^= 1;
    let damaged = Disk::with(files);
    spool.files = damaged.files();
    spool.compact().unwrap();
    assert_eq!(spool.damage().unwrap().file, "spool-a");
    state.entries.remove("conn-0").unwrap();
    assert_eq!(read(Disk::with(damaged.synced()).files(), LIMIT).1, state);
}
