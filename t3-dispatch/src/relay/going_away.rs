//! Close 1001 (going away, RFC 6455 section 7.4.1) to both peers when dispatch shuts down.
//!
//! The frame is inserted only at a frame boundary: a stream that is inside a frame or that violated
//! the protocol ends without one.

use t3_record::vocabulary::Side;

use crate::{relay::session::Session, sys::random_id};

/// Close code 1001 (going away).
pub const GOING_AWAY: u16 = 1001;

/// Appends a Close frame to the pending bytes of each direction that has none yet.
pub fn append(session: &mut Session) {
    for from in [Side::Up, Side::Down] {
        let flow = session.flow_mut(from);
        let open = !flow.ended && !flow.end_forwarded;
        if open && flow.scanner.at_boundary() && !flow.scanner.closed() {
            let frame = match from {
                Side::Up => unmasked(),
                Side::Down => masked(random_id::random()),
            };
            flow.pending.extend_from_slice(&frame);
        }
    }
}

fn unmasked() -> Vec<u8> {
    let [high, low] = GOING_AWAY.to_be_bytes();
    vec![0x88, 2, high, low]
}

fn masked(random: u64) -> Vec<u8> {
    let [high, low] = GOING_AWAY.to_be_bytes();
    let [a, b, c, d, ..] = random.to_ne_bytes();
    vec![0x88, 0x82, a, b, c, d, high ^ a, low ^ b]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_frames_have_code_1001() {
        assert_eq!(unmasked(), [0x88, 2, 0x03, 0xe9]);
        let frame = masked(u64::from_ne_bytes([1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(frame, [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xe9 ^ 2]);
    }
}
