//! What a change of state tells of the two FINs of a connection, and in which order they went.
//! Pure: no helper, no map; the hook that asks is `probes::state`.
//!
//! The old state proves what came before it. That counts when the hook that should have seen it did
//! not run: for a connection that was not watched (had no cookie) by then, and for a run that the
//! kernel left out because it had interrupted another run of the same program. Such a FIN is dated
//! just before the change that proves it, so that the order in which the two went is never turned
//! round.

use crate::sock::state::{CLOSE, CLOSE_WAIT, CLOSING, FIN_WAIT1, FIN_WAIT2, LAST_ACK};

/// How many nanoseconds before the change each FIN went, at the latest; `None`: the change tells
/// nothing of it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct Fins {
    /// The peer's.
    pub fin_in: Option<u64>,
    /// Ours.
    pub fin_out: Option<u64>,
}

/// What the change from `old` to `new` tells. `done`: the socket says that the peer's FIN has been
/// taken (`SOCK_DONE`).
#[inline(always)]
pub fn fins(old: i32, new: i32, done: bool) -> Fins {
    let fin_out = match (old, new) {
        (_, FIN_WAIT1 | LAST_ACK) => Some(0),
        (FIN_WAIT1 | FIN_WAIT2 | LAST_ACK, _) => Some(1),
        (CLOSING, _) => Some(2),
        _ => None,
    };
    let fin_in = match (old, new) {
        // CLOSING: the peer's FIN crossed ours.
        (_, CLOSE_WAIT | CLOSING) => Some(0),
        (CLOSE_WAIT | CLOSING, _) => Some(1),
        (LAST_ACK, _) => Some(2),
        // In FIN_WAIT2 it leads to CLOSE (TIME_WAIT is another structure), and so does giving up on
        // it: the flag tells the two apart.
        (FIN_WAIT1 | FIN_WAIT2, CLOSE) if done => Some(0),
        _ => None,
    };
    Fins { fin_in, fin_out }
}
