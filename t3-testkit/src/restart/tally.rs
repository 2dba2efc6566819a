//! Count and hash of the bytes of a stream. No IO.

use std::fmt;

/// Multiplier of FNV-1a (64 bits).
const PRIME: u64 = 0x0000_0100_0000_01b3;
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// Count and rolling hash of a stream: FNV-1a over words of eight bytes, which tests without
/// optimisation can afford. Independent of the pieces in which the stream comes.
#[derive(Clone, PartialEq, Eq)]
pub struct Tally {
    /// Bytes so far.
    pub bytes: u64,
    /// Frames so far.
    pub frames: u64,
    hash: u64,
    /// Bytes of the last, incomplete word.
    rest: [u8; 8],
}

impl Default for Tally {
    fn default() -> Self {
        Self { bytes: 0, frames: 0, hash: BASIS, rest: [0; 8] }
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {} frames, hash {:016x}", self.bytes, self.frames, self.hash)?;
        // At most 7.
        let rest = self.rest.iter().take(usize::try_from(self.bytes % 8).unwrap_or(0));
        rest.into_iter().try_for_each(|byte| write!(f, "+{byte:02x}"))
    }
}

impl Tally {
    /// Adds bytes of the stream.
    pub fn add(&mut self, mut bytes: &[u8]) {
        // At most 7.
        let have = usize::try_from(self.bytes % 8).unwrap_or(0);
        self.bytes += bytes.len() as u64;
        if have > 0 {
            let taken = bytes.len().min(8 - have);
            let (now, later) = bytes.split_at(taken);
            if let Some(place) = self.rest.get_mut(have..have + taken) {
                place.copy_from_slice(now);
            }
            bytes = later;
            if have + taken < 8 {
                return;
            }
            self.word(self.rest);
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(*word);
        }
        self.rest = [0; 8];
        if let Some(place) = self.rest.get_mut(..rest.len()) {
            place.copy_from_slice(rest);
        }
    }

    fn word(&mut self, word: [u8; 8]) {
        self.hash = (self.hash ^ u64::from_le_bytes(word)).wrapping_mul(PRIME).rotate_left(23);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_do_not_matter_and_every_byte_does() {
        let stream: Vec<u8> = (0..100_u8).collect();
        let of = |stream: &[u8], piece: usize| {
            let mut tally = Tally::default();
            stream.chunks(piece).for_each(|piece| tally.add(piece));
            tally
        };
        let whole = of(&stream, 100);
        for piece in 1..=20 {
            assert_eq!(of(&stream, piece), whole, "{piece}");
        }
        for at in 0..100 {
            let mut other = stream.clone();
            other[at] ^= 1;
            assert_ne!(of(&other, 7), whole, "flipped {at}");
            other.remove(at);
            assert_ne!(of(&other, 7), whole, "missing {at}");
        }
        let mut swapped = stream.clone();
        swapped.swap(0, 8);
        assert_ne!(of(&swapped, 100), whole);
        assert_ne!(of(&stream[..99], 100), of(&stream[..98], 100));
    }
}
