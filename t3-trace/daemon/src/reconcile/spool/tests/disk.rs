//! Full and real disks: space, lock, modes.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use super::{Change, State, read, simulated::Disk};
use crate::reconcile::spool::{MAX_CURSOR, MAX_KEY, MAX_VALUE, Spool, SpoolError};

#[test]
fn a_second_process_gets_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let first = Spool::open(dir.path(), 1 << 16).unwrap();
    assert!(matches!(Spool::open(dir.path(), 1 << 16), Err(SpoolError::InUse { .. })));
    drop(first);
    assert!(Spool::open(dir.path(), 1 << 16).is_ok());
}

#[test]
fn files_are_private_allocated_and_of_the_limit() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("a/state");
    let (mut spool, entries) = Spool::open(&dir, 1 << 20).unwrap();
    assert!(entries.is_empty() && spool.is_empty());
    spool.put("conn", b"value").unwrap();
    spool.set_cursor("s=1").unwrap();
    spool.sync().unwrap();
    drop(spool);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let files: Vec<_> = fs::read_dir(&dir).unwrap().map(|file| file.unwrap().metadata().unwrap()).collect();
    assert_eq!(files.len(), 2);
    for file in files {
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        // Where the file system can allocate at all.
        assert!(file.len() == 1 << 19 && file.blocks() * 512 >= 1 << 19 || file.len() < 4096, "{file:?}");
    }
    let (spool, entries) = Spool::open(&dir, 1 << 20).unwrap();
    assert_eq!(entries, [("conn".to_owned(), b"value".to_vec())].into());
    assert_eq!((spool.cursor(), spool.damage()), (Some("s=1"), None));
}

#[test]
fn a_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join("spool-a")).unwrap();
    assert!(matches!(Spool::open(dir.path(), 1 << 16), Err(SpoolError::Open { .. })));
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn a_full_spool_refuses_entries_and_keeps_its_own() {
    let disk = Disk::default();
    let limit = 1 << 18;
    let (mut spool, mut state) = read(disk.files(), limit);
    let mut serial = 0;
    let refused = loop {
        let change = Change::Put(format!("conn-{serial}"), vec![7; 500]);
        match change.to_spool(&mut spool) {
            Ok(()) => change.to_state(&mut state),
            Err(error) => break error,
        }
        serial += 1;
    };
    let (live, capacity) = (spool.live_bytes(), spool.capacity());
    assert!(matches!(refused, SpoolError::Full { .. }), "{refused:?}");
    assert!(live <= capacity && live + 530 > capacity && capacity > limit / 2 * 8 / 10, "{live} {capacity}");
    // Full does not prevent changes that free space, nor the cursor.
    for number in 0..2000_u32 {
        let cursor = Change::Cursor(format!("{number:0>MAX_CURSOR$}"));
        cursor.to_spool(&mut spool).unwrap();
        cursor.to_state(&mut state);
    }
    for number in 0..serial / 2 {
        let remove = Change::Remove(format!("conn-{number}"));
        remove.to_spool(&mut spool).unwrap();
        remove.to_state(&mut state);
    }
    spool.put("again", b"fits").unwrap();
    Change::Put("again".to_owned(), b"fits".to_vec()).to_state(&mut state);
    spool.sync().unwrap();
    assert_eq!(read(Disk::with(disk.synced()).files(), limit).1, state);
}

#[test]
fn on_a_full_disk_the_spool_is_smaller_and_does_not_grow() {
    for (space, most) in [(1 << 20, 1 << 19), (100_000, 50_000), (9_000, 4_500), (5_000, 0), (0, 0)] {
        let disk = Disk::default();
        disk.set_space(space);
        let (mut spool, _) = read(disk.files(), 1 << 20);
        assert!(spool.size <= most && spool.size >= most / 2, "{space}: {}", spool.size);
        let put = spool.put("conn", b"value");
        assert_eq!(put.is_ok(), most > 0, "{space}: {put:?}");
        assert!(put.is_ok() || matches!(put, Err(SpoolError::Full { .. })));
        spool.remove("other").unwrap();
        spool.sync().unwrap();
        let used: usize = disk.cache().iter().map(Vec::len).sum();
        assert!(used as u64 <= space, "{used} of {space}");
    }
}

#[test]
fn files_of_an_earlier_start_work_on_a_full_disk() {
    let disk = Disk::default();
    let (mut spool, mut state) = read(disk.files(), 1 << 16);
    for serial in 0..40 {
        let change = Change::put(serial, 300, serial.into());
        change.to_spool(&mut spool).unwrap();
        change.to_state(&mut state);
    }
    spool.sync().unwrap();
    let disk = Disk::with(disk.synced());
    disk.set_space(1 << 16);
    let (mut spool, found) = read(disk.files(), 1 << 16);
    assert_eq!((spool.size, &found), (1 << 15, &state));
    for serial in 0..500 {
        let change = Change::put(u8::try_from(serial % 40).unwrap(), 310, serial);
        change.to_spool(&mut spool).unwrap();
        change.to_state(&mut state);
    }
    spool.sync().unwrap();
    assert_eq!(read(Disk::with(disk.synced()).files(), 1 << 16).1, state);
    assert!(disk.cache().iter().all(|file| file.len() <= 1 << 15));
}

#[test]
fn a_lower_limit_keeps_all_entries() {
    let disk = Disk::default();
    let (mut spool, mut state) = read(disk.files(), 1 << 18);
    for serial in 0..100 {
        let change = Change::put(serial, 400, serial.into());
        change.to_spool(&mut spool).unwrap();
        change.to_state(&mut state);
    }
    spool.sync().unwrap();
    let (mut spool, found) = read(disk.files(), 1 << 14);
    assert_eq!(found, state);
    for serial in 0..90 {
        Change::remove(serial).to_spool(&mut spool).unwrap();
        Change::remove(serial).to_state(&mut state);
    }
    spool.sync().unwrap();
    let (_, found) = read(disk.files(), 1 << 14);
    assert_eq!(found, state);
}

#[test]
fn without_allocation_it_works_as_well() {
    let disk = Disk::default().without_allocation();
    let (mut spool, _) = read(disk.files(), 1 << 16);
    spool.put("conn", b"value").unwrap();
    spool.sync().unwrap();
    let expected = State { entries: [("conn".to_owned(), b"value".to_vec())].into(), cursor: None };
    assert_eq!(read(Disk::with(disk.synced()).files(), 1 << 16).1, expected);
}

#[test]
fn lengths_are_checked() {
    let (mut spool, _) = read(Disk::default().files(), 1 << 18);
    let longest = "k".repeat(MAX_KEY);
    spool.put(&longest, &vec![1; MAX_VALUE]).unwrap();
    assert!(matches!(spool.put("k", &vec![1; MAX_VALUE + 1]), Err(SpoolError::TooLong { .. })));
    assert!(matches!(spool.put("", b""), Err(SpoolError::Key { len: 0 })));
    assert!(matches!(spool.put(&(longest + "k"), b""), Err(SpoolError::Key { len: 256 })));
    assert!(matches!(spool.set_cursor(&"c".repeat(MAX_CURSOR + 1)), Err(SpoolError::TooLong { .. })));
    assert_eq!(spool.len(), 1);
}
