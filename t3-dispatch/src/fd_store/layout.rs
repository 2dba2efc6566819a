//! Places in the memory of all sessions. Sizes in bytes.
//!
//! ```text
//! header | slots | read buffers | details | pending bytes
//! ```
//!
//! Only slots are in use all the time. The other parts take memory only where something was
//! written: the read buffers of the threads, details of sessions that are ending, bytes of sessions
//! whose peer does not read.

/// First bytes of the memory.
pub const MAGIC: [u8; 8] = *b"t3-dispS";
/// Version of this layout and of the contents. Memory of another version is refused.
pub const VERSION: u32 = 1;
/// Length of the header; the rest begins at a page.
pub const HEADER: usize = 4096;
/// Distance between two slots.
pub const SLOT: usize = 768;
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

/// Parts of a slot: offset and length.
pub mod slot {
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
    /// Kernel's counters less the session's, four words of 64 bits.
    pub const BASELINE: (usize, usize) = (16, 32);
    /// Two copies of the positions.
    pub const POSITIONS: [usize; 2] = [64, 208];
    /// Length of one copy.
    pub const POSITIONS_LENGTH: usize = 144;
    /// Sequence number (odd while it is written), length, content.
    pub const CHECKPOINT: (usize, usize) = (352, 176);
    /// Length, content.
    pub const IDENTITY: (usize, usize) = (528, 240);
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

    /// Offset of a copy of the details.
    #[must_use]
    pub const fn details(self, slot: u32, copy: usize) -> usize {
        self.buffer(BUFFERS) + (2 * slot as usize + copy) * DETAILS
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
        let mut parts = vec![
            (slot::STATE, 4),
            (slot::ACTIVE, 4),
            (slot::READING, 4),
            (slot::RESUMED, 4),
            slot::BASELINE,
            (slot::POSITIONS[0], slot::POSITIONS_LENGTH),
            (slot::POSITIONS[1], slot::POSITIONS_LENGTH),
            slot::CHECKPOINT,
            slot::IDENTITY,
        ];
        parts.sort_unstable();
        assert!(parts.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{parts:?}");
        assert!(parts.last().is_some_and(|(at, length)| at + length <= SLOT));
    }

    #[test]
    fn the_regions_begin_at_pages_and_end_at_the_next() {
        let layout = Layout::new(3).unwrap();
        assert_eq!(layout.buffer(0), 8192);
        assert_eq!(layout.details(0, 0), 8192 + BUFFERS * BUFFER);
        assert_eq!(layout.details(2, 1) + DETAILS, layout.pending(0, 0));
        assert_eq!(layout.pending(2, 1) + BUFFER, layout.total());
        assert_eq!((Layout::new(0), Layout::new(MOST_SLOTS + 1)), (None, None));
    }
}
