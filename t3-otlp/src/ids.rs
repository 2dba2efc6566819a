//! Trace and span ID of a session, derived from its `conn`: the same for its log record and its
//! span, and the same when a batch is sent again. Pure.

/// FNV-1a (draft-eastlake-fnv) with 128 bits.
fn hash(text: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    text.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// Trace ID: 16 bytes, not all zero (W3C Trace Context section 3.2.2.3).
#[must_use]
pub fn trace(conn: &str) -> [u8; 16] {
    hash(conn.as_bytes()).max(1).to_be_bytes()
}

/// Span ID: 8 bytes, not all zero.
#[must_use]
pub fn span(conn: &str) -> [u8; 8] {
    let mut text = b"span ".to_vec();
    text.extend_from_slice(conn.as_bytes());
    let hash = hash(&text).to_be_bytes();
    let mut id = [0; 8];
    id.copy_from_slice(hash.get(8..).unwrap_or(&[1; 8]));
    if id == [0; 8] { [1; 8] } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        // Test vectors of the draft, section "FNV-1a 128".
        assert_eq!(hash(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(hash(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }

    #[test]
    fn ids_differ_by_session_and_are_stable() {
        assert_eq!(trace("c1"), trace("c1"));
        assert_ne!(trace("c1"), trace("c2"));
        assert_ne!(span("c1"), span("c2"));
        assert_ne!(&trace("c1")[8..], span("c1"));
    }
}
