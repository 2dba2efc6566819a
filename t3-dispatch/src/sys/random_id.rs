//! Session ids: 64 random bits as 13 characters of lower-case base32 (RFC 4648 alphabet), short and
//! unique within a journal.

use std::{
    cell::Cell,
    hash::{BuildHasher, Hasher, RandomState},
};

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Numbers that are read from the kernel at a time.
const BATCH: usize = 32;

thread_local! {
    /// Numbers that were not used yet, and how many.
    static READ: Cell<([u64; BATCH], usize)> = const { Cell::new(([0; BATCH], 0)) };
}

/// Returns a new id.
#[must_use]
pub fn fresh() -> String {
    encode(random())
}

/// Returns 64 random bits from the kernel, or from the process's hash keys before its pool is
/// ready.
#[must_use]
pub fn random() -> u64 {
    let (mut numbers, mut left) = READ.get();
    if left == 0 {
        let Some(read) = read() else { return RandomState::new().build_hasher().finish() };
        (numbers, left) = (read, BATCH);
    }
    left -= 1;
    // Used once: nothing in memory tells a number that was returned.
    let number = std::mem::take(&mut numbers[left]);
    READ.set((numbers, left));
    number
}

/// Reads a batch of numbers. Up to 256 bytes are read completely or not at all (getrandom(2)).
fn read() -> Option<[u64; BATCH]> {
    let mut bytes = [[0; 8]; BATCH];
    let length = bytes.as_flattened().len();
    let read =
        rustix::rand::getrandom(bytes.as_flattened_mut(), rustix::rand::GetRandomFlags::NONBLOCK).ok()?;
    (read == length).then(|| bytes.map(u64::from_ne_bytes))
}

fn encode(bits: u64) -> String {
    let digit = |index: u32| ALPHABET[usize::from((bits >> (index * 5)).to_le_bytes()[0] & 31)];
    (0..13).rev().map(|index| char::from(digit(index))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_thirteen_characters_and_keep_every_bit() {
        assert_eq!(encode(0), "aaaaaaaaaaaaa");
        assert_eq!(encode(u64::MAX), "p777777777777");
        for bit in 0..64 {
            assert_ne!(encode(1 << bit), encode(0));
        }
        assert_ne!(fresh(), fresh());
    }

    #[test]
    fn each_number_is_returned_once() {
        let of_thread = || (0..3 * BATCH).map(|_| random()).collect::<Vec<_>>();
        let mut all = of_thread();
        all.extend(std::thread::spawn(of_thread).join().unwrap());
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(!all.contains(&0));
    }
}
