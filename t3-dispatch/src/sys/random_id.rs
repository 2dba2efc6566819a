//! Session ids: 64 random bits as 13 characters of lower-case base32 (RFC 4648 alphabet), short and
//! unique within a journal.

use std::hash::{BuildHasher, Hasher, RandomState};

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Returns a new id.
#[must_use]
pub fn fresh() -> String {
    encode(random())
}

/// Returns 64 random bits from the kernel, or from the process's hash keys before its pool is
/// ready.
#[must_use]
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => RandomState::new().build_hasher().finish(),
    }
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
}
