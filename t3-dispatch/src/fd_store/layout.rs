//! Places in the memory of all sessions. Sizes in bytes.
//!
//! ```text
//! header | slots | read buffers | pages | details | pending bytes
//! ```
//!
//! Only slots are in use all the time. The other parts take memory only where something was
//! written: the read buffers of the threads, the page of a session of which a part is longer than
//! its place in the slot, details of sessions that are ending, bytes of sessions whose peer does
//! not read.

/// First bytes of the memory.
pub const MAGIC: [u8; 8] = *b"t3-dispS";
/// Version of this layout and of the contents. Memory of another version is refused.
pub const VERSION: u32 = 2;
/// Length of the header; the rest begins at a page.
pub const HEADER: usize = 4096;
/// Distance between two slots.
pub const SLOT: usize = 464;
/// The page of a session, for parts that are longer than their place in the slot.
pub const PAGE: usize = 4096;
/// Limit of one read, and so of the bytes that are pending in one direction.
pub const BUFFER: usize = 64 * 1024;
/// Threads that relay. More threads do not have a read buffer here.
pub const BUFFERS: usize = 64;
/// One of the two copies of the details of a session.
pub const DETAILS: usize = 16 * 1024;
/// Length of the description of a copy: commit, length, checksum.
pub const DETAILS_HEADER: usize = 12;
/// Most sessions.
pub const MOST_SLOTS: u32 = 65_536;

/// A part of variable length: a word with the length, and the content in the slot, or in the page
/// of the session if it is longer than the place in the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Offset of the length in the slot.
    pub at: usize,
    /// Most bytes of the content in the slot, which follows the length.
    pub room: usize,
    /// Offset of the content in the page.
    pub in_page: usize,
    /// Most bytes of the content in the page.
    pub most: usize,
}

/// Parts of a slot.
pub mod slot {
    use super::Part;

    /// State of a slot whose session is continued by the next process.
    pub const LIVE: u32 = 0x4c49_5645;
    /// [`LIVE`] or 0.
    pub const STATE: usize = 0;
    /// Index of the valid copy of the positions.
    pub const ACTIVE: usize = 4;
    /// 0, or 1 + 2 × read buffer + side, and its complement: the direction and place of the last
    /// read.
    pub const READING: usize = 8;
    /// Number of processes before this one that had the session.
    pub const RESUMED: usize = 12;
    /// Sequence number of the checkpoint, odd while it is written.
    pub const SEQUENCE: usize = 16;
    /// Most bytes of the positions in the slot.
    pub const POSITIONS_ROOM: usize = 72;
    /// Most bytes of the positions.
    pub const POSITIONS_MOST: usize = 192;
    /// Two copies of the positions.
    pub const POSITIONS: [Part; 2] = [
        Part { at: 20, room: POSITIONS_ROOM, in_page: 0, most: POSITIONS_MOST },
        Part { at: 96, room: POSITIONS_ROOM, in_page: 256, most: POSITIONS_MOST },
    ];
    /// The heartbeat.
    pub const CHECKPOINT: Part = Part { at: 172, room: 120, in_page: 512, most: 512 };
    /// Whose session it is.
    pub const IDENTITY: Part = Part { at: 296, room: 164, in_page: 1024, most: 3072 };
}

/// Places for a number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    slots: u32,
}

impl Layout {
    /// Returns `None` for no or too many slots.
    #[must_use]
    pub fn new(slots: u32) -> Option<Self> {
        (1..=MOST_SLOTS).contains(&slots).then_some(Self { slots })
    }

    /// The number of slots.
    #[must_use]
    pub const fn slots(self) -> u32 {
        self.slots
    }

    /// Offset of a slot.
    #[must_use]
    pub const fn slot(self, slot: u32) -> usize {
        HEADER + slot as usize * SLOT
    }

    /// Offset of a read buffer.
    #[must_use]
    pub const fn buffer(self, buffer: usize) -> usize {
        page(HEADER + self.slots as usize * SLOT) + buffer * BUFFER
    }

    /// Offset of the page of a session.
    #[must_use]
    pub const fn page(self, slot: u32) -> usize {
        self.buffer(BUFFERS) + slot as usize * PAGE
    }

    /// Offset of a copy of the details.
    #[must_use]
    pub const fn details(self, slot: u32, copy: usize) -> usize {
        self.page(self.slots) + (2 * slot as usize + copy) * DETAILS
    }

    /// Offset of the pending bytes of a direction.
    #[must_use]
    pub const fn pending(self, slot: u32, direction: usize) -> usize {
        self.details(self.slots, 0) + (2 * slot as usize + direction) * BUFFER
    }

    /// Length of the memory.
    #[must_use]
    pub const fn total(self) -> usize {
        self.pending(self.slots, 0)
    }
}

/// Rounds up to whole pages.
const fn page(offset: usize) -> usize {
    offset.next_multiple_of(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_slot_do_not_overlap() {
        let parts = [slot::POSITIONS[0], slot::POSITIONS[1], slot::CHECKPOINT, slot::IDENTITY];
        let words = [slot::STATE, slot::ACTIVE, slot::READING, slot::RESUMED, slot::SEQUENCE];
        let mut in_slot: Vec<_> = words.map(|at| (at, 4)).to_vec();
        in_slot.extend(parts.map(|part| (part.at, 4 + part.room)));
        let in_page = parts.map(|part| (part.in_page, part.most)).to_vec();
        for (mut places, end) in [(in_slot, SLOT), (in_page, PAGE)] {
            places.sort_unstable();
            assert!(places.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{places:?}");
            assert!(places.last().is_some_and(|(at, length)| at + length <= end));
        }
        assert!(parts.iter().all(|part| part.at % 4 == 0 && part.room < part.most));
        assert_eq!(SLOT % 4, 0, "words are aligned");
    }

    #[test]
    fn the_regions_begin_at_pages_and_end_at_the_next() {
        let layout = Layout::new(3).unwrap();
        assert_eq!(layout.buffer(0), 8192);
        assert_eq!(layout.page(0), 8192 + BUFFERS * BUFFER);
        assert_eq!(layout.page(2) + PAGE, layout.details(0, 0));
        assert_eq!(layout.details(2, 1) + DETAILS, layout.pending(0, 0));
        assert_eq!(layout.pending(2, 1) + BUFFER, layout.total());
        assert_eq!((Layout::new(0), Layout::new(MOST_SLOTS + 1)), (None, None));
    }
}
