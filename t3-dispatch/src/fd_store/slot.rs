//! The slot of one session. Readable after a SIGKILL at any instruction:
//!
//! - the positions have two copies, and one word tells which is valid;
//! - the checkpoint has a sequence number that is odd while it is written;
//! - each copy of the details has the number of the commit to which it belongs, and a checksum;
//! - pending bytes are written while the valid positions say that there are none.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::fd_store::{
    layout::{BUFFER, BUFFERS, DETAILS, DETAILS_HEADER, PAGE, Part, SLOT, slot as at, slot::LIVE},
    state_file::StateFile,
};

/// A direction and a read buffer: where the bytes of the last read are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// 0: from the client, 1: from serve.
    pub direction: usize,
    /// Number of the read buffer.
    pub buffer: usize,
}

/// The slot of one session. Returned to the free ones by the drop, unless [`Slot::leave`] was
/// called.
pub struct Slot {
    file: Arc<StateFile>,
    index: u32,
    left: AtomicBool,
    /// The page, details or pending bytes were written, which take whole pages.
    has_pages: AtomicBool,
    /// Pending bytes have memory.
    has_pending: AtomicBool,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.index).finish()
    }
}

impl Slot {
    /// Takes a free slot; `None` if there is none.
    #[must_use]
    pub fn take(file: &Arc<StateFile>) -> Option<Self> {
        Some(Self::new(Arc::clone(file), file.take()?, false))
    }

    /// The slots of sessions of the previous process. A slot that is dropped ends its session.
    #[must_use]
    pub fn live(file: &Arc<StateFile>) -> Vec<Self> {
        file.live().map(|slot| Self::new(Arc::clone(file), slot, true)).collect()
    }

    fn new(file: Arc<StateFile>, index: u32, has_pages: bool) -> Self {
        Self {
            file,
            index,
            left: AtomicBool::new(false),
            has_pages: AtomicBool::new(has_pages),
            has_pending: AtomicBool::new(has_pages),
        }
    }

    /// Offset of the slot in the memory.
    fn base(&self) -> usize {
        self.file.layout().slot(self.index)
    }

    /// The number of the slot.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Name of the slot's sockets in the store: short, because the names of all sockets are in one
    /// environment variable, which has a limit of 128 KiB (execve(2)).
    #[must_use]
    pub fn name(&self) -> String {
        name(self.index)
    }

    /// Makes the session one that the next process continues. Positions and identity must have
    /// been written.
    pub fn go_live(&self) {
        self.file.memory().store(self.base() + at::STATE, LIVE);
    }

    /// Makes the session one that ends with this process.
    pub fn retire(&self) {
        self.file.memory().store(self.base() + at::STATE, 0);
    }

    /// Whether the next process continues the session.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.file.memory().load(self.base() + at::STATE) == LIVE
    }

    /// Leaves the slot to the next process.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// Whether the slot is left to the next process.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.left.load(Ordering::Acquire) || self.file.is_left()
    }

    /// Returns the slot to the free ones.
    pub fn free(self) {
        drop(self);
    }

    /// Number of processes that had the session before this one.
    #[must_use]
    pub fn resumed(&self) -> u32 {
        self.file.memory().load(self.base() + at::RESUMED)
    }

    /// See [`Slot::resumed`].
    pub fn set_resumed(&self, resumed: u32) {
        self.file.memory().store(self.base() + at::RESUMED, resumed);
    }

    /// The positions that were committed last; `None` for a length that none have.
    #[must_use]
    pub fn positions(&self) -> Option<Vec<u8>> {
        let active = self.file.memory().load(self.base() + at::ACTIVE) as usize & 1;
        self.read_part(at::POSITIONS[active])
    }

    /// Replaces the positions at once: the first `length` of these bytes. Returns `false` if there
    /// are none, or too many.
    #[must_use]
    pub fn commit(&self, positions: &[u8; at::POSITIONS_MOST], length: usize) -> bool {
        let Some(content) = positions.get(..length).filter(|content| !content.is_empty()) else {
            return false;
        };
        let (memory, base) = (self.file.memory(), self.base());
        let next = memory.load(base + at::ACTIVE) ^ 1;
        let part = at::POSITIONS[next as usize & 1];
        match positions.first_chunk::<{ at::POSITIONS_ROOM }>() {
            // With each message, so the whole place is written, without a loop.
            Some(place) if length <= part.room => {
                memory.store(base + part.at, u32::try_from(length).unwrap_or(0));
                memory.write_array(base + part.at + 4, place);
            }
            _ if !self.write_part(part, content) => return false,
            _ => {}
        }
        memory.store(base + at::ACTIVE, next);
        true
    }

    /// Notes where the next read puts its bytes; `None`: not in shared memory.
    pub fn set_reading(&self, reading: Option<Reading>) {
        let number = reading.map_or(0, |reading| 1 + 2 * reading.buffer + reading.direction);
        let number = u32::try_from(number).unwrap_or(0) & 0xffff;
        // With its complement, so that a changed bit is noticed.
        self.file.memory().store(self.base() + at::READING, number | (number ^ 0xffff) << 16);
    }

    /// Where the last read has put its bytes.
    #[must_use]
    pub fn reading(&self) -> Option<Reading> {
        let word = self.file.memory().load(self.base() + at::READING);
        let number = word & 0xffff;
        let word = number.checked_sub(1).filter(|_| word >> 16 == number ^ 0xffff)? as usize;
        let reading = Reading { direction: word & 1, buffer: word / 2 };
        (reading.buffer < BUFFERS).then_some(reading)
    }

    /// Writes the checkpoint; one that is too long is marked as missing.
    pub fn write_checkpoint(&self, content: &[u8]) {
        let (memory, at) = (self.file.memory(), self.base() + at::SEQUENCE);
        let sequence = memory.load(at) & !1;
        memory.store(at, sequence.wrapping_add(1));
        if !self.write_part(at::CHECKPOINT, content) {
            let _ = self.write_part(at::CHECKPOINT, &[]);
        }
        memory.store(at, sequence.wrapping_add(2));
    }

    /// The checkpoint; `None` if the process was killed while it wrote it.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Vec<u8>> {
        let is_complete = self.file.memory().load(self.base() + at::SEQUENCE) & 1 == 0;
        is_complete.then(|| self.read_part(at::CHECKPOINT)).flatten()
    }

    /// Writes the identity. Returns `false` if it is too long.
    #[must_use]
    pub fn write_identity(&self, content: &[u8]) -> bool {
        self.write_part(at::IDENTITY, content)
    }

    /// The identity.
    #[must_use]
    pub fn identity(&self) -> Option<Vec<u8>> {
        self.read_part(at::IDENTITY)
    }

    /// Writes length and content. Returns `false`, and writes nothing, if it is too long.
    fn write_part(&self, part: Part, content: &[u8]) -> bool {
        let length = match u32::try_from(content.len()) {
            Ok(length) if content.len() <= part.most => length,
            _ => return false,
        };
        let (memory, at) = (self.file.memory(), self.base() + part.at);
        memory.store(at, length);
        if content.len() <= part.room {
            memory.write(at + 4, content);
        } else {
            self.has_pages.store(true, Ordering::Relaxed);
            memory.write(self.file.layout().page(self.index) + part.in_page, content);
        }
        true
    }

    /// The content of a part; `None` if there is none, or for a length that none has.
    fn read_part(&self, part: Part) -> Option<Vec<u8>> {
        let (memory, at) = (self.file.memory(), self.base() + part.at);
        let length = memory.load(at) as usize;
        if !(1..=part.most).contains(&length) {
            return None;
        }
        let is_in_slot = length <= part.room;
        let from = if is_in_slot { at + 4 } else { self.file.layout().page(self.index) + part.in_page };
        let mut content = vec![0; length];
        memory.read(from, &mut content);
        Some(content)
    }

    /// Writes the details that belong to the commit with this number, before that commit. Returns
    /// `false` if they are too long.
    #[must_use]
    pub fn write_details(&self, commit: u32, content: &[u8]) -> bool {
        if content.len() + DETAILS_HEADER > DETAILS {
            return false;
        }
        self.has_pages.store(true, Ordering::Relaxed);
        let memory = self.file.memory();
        // Commits alternate between the copies, so the last valid one stays.
        let offset = self.file.layout().details(self.index, commit as usize & 1);
        memory.store(offset + 4, 0);
        memory.write(offset + DETAILS_HEADER, content);
        memory.store(offset, commit);
        memory.store(offset + 8, checksum(commit, content));
        memory.store(offset + 4, u32::try_from(content.len()).unwrap_or(0));
        true
    }

    /// The newest details, not newer than a commit, and the number of their commit.
    #[must_use]
    pub fn details(&self, commit: u32) -> Option<(u32, Vec<u8>)> {
        let copies = (0..2).filter_map(|copy| {
            let memory = self.file.memory();
            let offset = self.file.layout().details(self.index, copy);
            let length = memory.load(offset + 4) as usize;
            if length == 0 || length + DETAILS_HEADER > DETAILS {
                return None;
            }
            let number = memory.load(offset);
            let mut content = vec![0; length];
            memory.read(offset + DETAILS_HEADER, &mut content);
            let is_valid = number <= commit && memory.load(offset + 8) == checksum(number, &content);
            is_valid.then_some((number, content))
        });
        copies.max_by_key(|(number, _)| *number)
    }

    /// Keeps pending bytes of a direction. Returns `false` if there are too many.
    #[must_use]
    pub fn write_pending(&self, direction: usize, bytes: &[u8]) -> bool {
        if bytes.len() > BUFFER {
            return false;
        }
        self.has_pages.store(true, Ordering::Relaxed);
        self.has_pending.store(true, Ordering::Relaxed);
        self.file.memory().write(self.file.layout().pending(self.index, direction), bytes);
        true
    }

    /// The first `length` pending bytes of a direction.
    #[must_use]
    pub fn pending(&self, direction: usize, length: usize) -> Option<Vec<u8>> {
        self.copy(self.file.layout().pending(self.index, direction), length)
    }

    /// The first `length` bytes of a read buffer.
    #[must_use]
    pub fn read_bytes(&self, buffer: usize, length: usize) -> Option<Vec<u8>> {
        self.copy(self.file.layout().buffer(buffer), length)
    }

    fn copy(&self, offset: usize, length: usize) -> Option<Vec<u8>> {
        if length > BUFFER {
            return None;
        }
        let mut bytes = vec![0; length];
        self.file.memory().read(offset, &mut bytes);
        Some(bytes)
    }

    /// The memory that the slot is in.
    #[must_use]
    pub const fn file(&self) -> &Arc<StateFile> {
        &self.file
    }

    /// Gives the memory of the details back to the kernel.
    pub fn release_details(&self) {
        self.file.memory().release(self.file.layout().details(self.index, 0), 2 * DETAILS);
    }

    /// Gives the memory of pending bytes back to the kernel, if there were any since the last call.
    pub fn release_pending(&self) {
        if self.has_pending.swap(false, Ordering::Relaxed) {
            self.file.memory().release(self.file.layout().pending(self.index, 0), 2 * BUFFER);
        }
    }

    /// Gives the memory outside the slot back to the kernel.
    fn shrink(&self) {
        if !self.has_pages.swap(false, Ordering::Relaxed) {
            return;
        }
        let (memory, layout) = (self.file.memory(), self.file.layout());
        memory.release(layout.page(self.index), PAGE);
        memory.release(layout.pending(self.index, 0), 2 * BUFFER);
        memory.release(layout.details(self.index, 0), 2 * DETAILS);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.is_left() {
            self.retire();
            self.shrink();
            self.file.memory().write(self.base(), &[0; SLOT]);
            self.file.free(self.index);
        }
    }
}

/// Whether a name can be that of a slot.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=3).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// See [`Slot::name`].
#[must_use]
pub fn name(index: u32) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let (mut rest, mut name) = (index as usize, Vec::new());
    loop {
        name.push(char::from(DIGITS[rest % DIGITS.len()]));
        rest /= DIGITS.len();
        if rest == 0 {
            return name.into_iter().rev().collect();
        }
    }
}

/// CRC-32 of details and of the number of their commit.
fn checksum(commit: u32, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&commit.to_ne_bytes());
    hasher.update(content);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(slot: &Slot, byte: u8, length: usize) -> bool {
        slot.commit(&[byte; at::POSITIONS_MOST], length)
    }

    fn slot() -> Slot {
        Slot::take(&StateFile::create(2).unwrap()).unwrap()
    }

    #[test]
    fn the_next_process_finds_live_slots_and_takes_others() {
        let first = StateFile::create(3).unwrap();
        let (a, b) = (Slot::take(&first).unwrap(), Slot::take(&first).unwrap());
        a.go_live();
        assert_eq!((a.index(), b.index()), (0, 1));
        let second = StateFile::open(first.fd().try_clone_to_owned().unwrap()).unwrap();
        let live = Slot::live(&second);
        assert_eq!(live.iter().map(Slot::index).collect::<Vec<_>>(), [0]);
        assert_eq!(Slot::take(&second).map(|slot| slot.index()), Some(1));
    }

    #[test]
    fn all_slots_in_use_is_no_error() {
        let file = StateFile::create(1).unwrap();
        let slot = Slot::take(&file).unwrap();
        assert!(Slot::take(&file).is_none());
        slot.free();
        assert!(Slot::take(&file).is_some());
    }

    #[test]
    fn names_are_short_and_unique() {
        assert_eq!([0, 9, 61, 62, 9_000].map(name), ["0", "9", "z", "10", "2LA"]);
        let names: std::collections::HashSet<_> = (0..10_000).map(name).collect();
        assert_eq!(names.len(), 10_000);
    }

    #[test]
    fn a_commit_replaces_the_positions_at_once() {
        let slot = slot();
        // In the slot, in the page, and from one to the other.
        for length in [[40, 40], [180, 180], [40, 180], [180, 40]] {
            let positions = |byte: u8, n: usize| vec![byte; length[n]];
            assert!(commit(&slot, 1, length[0]));
            assert_eq!(slot.positions(), Some(positions(1, 0)));
            // Killed before the last word of a commit.
            let next = slot.file.memory().load(slot.base() + at::ACTIVE) ^ 1;
            assert!(slot.write_part(at::POSITIONS[next as usize], &positions(2, 1)));
            assert_eq!(slot.positions(), Some(positions(1, 0)));
            assert!(commit(&slot, 3, length[1]));
            assert_eq!(slot.positions(), Some(positions(3, 1)));
        }
        assert!(!commit(&slot, 4, at::POSITIONS_MOST + 1) && !commit(&slot, 4, 0));
        assert_eq!(slot.positions(), Some(vec![3; 40]), "no valid length, so the last ones stay");
    }

    #[test]
    fn a_checkpoint_that_was_not_finished_is_missing() {
        let slot = slot();
        assert_eq!(slot.checkpoint(), None);
        slot.write_checkpoint(b"first");
        assert_eq!(slot.checkpoint().as_deref(), Some(&b"first"[..]));
        slot.file.memory().store(slot.base() + at::SEQUENCE, 3);
        assert_eq!(slot.checkpoint(), None);
        slot.write_checkpoint(&[7; 300]);
        assert_eq!(slot.checkpoint(), Some(vec![7; 300]));
        slot.write_checkpoint(&[1; 513]);
        assert_eq!(slot.checkpoint(), None);
    }

    #[test]
    fn parts_at_the_limits_of_their_places_do_not_change_each_other() {
        let slot = slot();
        for extra in [0, 1] {
            let length = |part: Part| part.room + extra;
            assert!(slot.write_identity(&vec![1; length(at::IDENTITY)]));
            slot.write_checkpoint(&vec![2; length(at::CHECKPOINT)]);
            assert!(commit(&slot, 3, length(at::POSITIONS[0])) && commit(&slot, 4, length(at::POSITIONS[0])));
            assert_eq!(slot.identity(), Some(vec![1; length(at::IDENTITY)]));
            assert_eq!(slot.checkpoint(), Some(vec![2; length(at::CHECKPOINT)]));
            assert_eq!(slot.positions(), Some(vec![4; length(at::POSITIONS[0])]));
        }
        assert!(!slot.write_identity(&vec![1; at::IDENTITY.most + 1]));
    }

    #[test]
    fn details_are_those_of_the_commit_or_older() {
        let slot = slot();
        assert_eq!(slot.details(9), None);
        assert!(slot.write_details(4, b"four") && slot.write_details(5, b"five"));
        assert_eq!(slot.details(4), Some((4, b"four".to_vec())), "killed before commit 5");
        assert_eq!(slot.details(5), Some((5, b"five".to_vec())));
        assert_eq!(slot.details(7), Some((5, b"five".to_vec())));
        assert!(slot.write_details(6, b"six"));
        let offset = slot.file.layout().details(slot.index, 0);
        slot.file.memory().write(offset + DETAILS_HEADER, b"S");
        assert_eq!(slot.details(6), Some((5, b"five".to_vec())), "torn");
        assert!(!slot.write_details(7, &vec![0; DETAILS]));
    }

    #[test]
    fn a_dropped_slot_is_empty_and_free() {
        let file = StateFile::create(1).unwrap();
        let slot = Slot::take(&file).unwrap();
        assert!(slot.write_identity(&[9; 300]) && slot.write_pending(1, b"bytes"));
        slot.set_reading(Some(Reading { direction: 1, buffer: 3 }));
        slot.go_live();
        assert_eq!(slot.reading(), Some(Reading { direction: 1, buffer: 3 }));
        assert_eq!(slot.pending(1, 5), Some(b"bytes".to_vec()));
        drop(slot);
        assert!(Slot::live(&file).is_empty());
        let slot = Slot::take(&file).unwrap();
        assert_eq!((slot.identity(), slot.reading(), slot.pending(1, 1)), (None, None, Some(vec![0])));
        let page: [u8; PAGE] = file.memory().array(file.layout().page(0));
        assert_eq!(page, [0; PAGE], "the page of the session before");
    }

    #[test]
    fn lengths_from_outside_are_checked() {
        let slot = slot();
        slot.file.memory().store(slot.base() + at::IDENTITY.at, u32::MAX);
        slot.file.memory().store(slot.base() + at::READING, u32::MAX);
        slot.file.memory().store(slot.file.layout().details(slot.index, 0) + 4, u32::MAX);
        slot.file.memory().store(slot.base() + at::POSITIONS[0].at, 193);
        assert_eq!((slot.identity(), slot.positions()), (None, None));
        assert_eq!((slot.reading(), slot.details(1)), (None, None));
        assert_eq!((slot.pending(0, BUFFER + 1), slot.read_bytes(0, usize::MAX)), (None, None));
    }
}
