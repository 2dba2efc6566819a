//! Close frames of our own, when dispatch stops: 1001 "going away" (RFC 6455 section 7.4.1) to both
//! sides.
//!
//! Only put where a frame may stand: a stream that is inside a frame, or that broke the protocol,
//! gets none and just ends.

use t3_record::vocabulary::Side;

use crate::{relay::session::Session, sys::random_id};

/// "Going away".
pub const GOING_AWAY: u16 = 1001;

/// Puts a close frame behind whatever is pending in each direction that has none yet.
pub fn put(session: &mut Session) {
    for from in [Side::Up, Side::Down] {
        let flow = session.flow_mut(from);
        let open = !flow.ended && !flow.passed_on;
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
    fn both_frames_carry_1001() {
        assert_eq!(unmasked(), [0x88, 2, 0x03, 0xe9]);
        let frame = masked(u64::from_ne_bytes([1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(frame, [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xe9 ^ 2]);
    }
}
