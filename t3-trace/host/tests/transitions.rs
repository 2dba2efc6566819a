//! The order of the two FINs survives any run of the state hook that the kernel leaves out.
//! Compiles the eBPF program's own rule.

/// Where the rule looks for the states.
mod sock {
    pub(crate) use super::state;
}
#[path = "../../../t3-trace-ebpf/src/sock/state.rs"]
#[allow(dead_code, reason = "the rule needs some of the states only")]
mod state;
#[path = "../../../t3-trace-ebpf/src/transition.rs"]
mod transition;

use sock::state::{CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK};
use transition::{Fins, fins};

/// The states of a connection in turn (net/ipv4/tcp.c, tcp_input.c), whether `SOCK_DONE` is set at
/// each change, and whose FIN was first.
type Way = (&'static [(i32, bool)], Option<First>);

const WAYS: [Way; 6] = [
    (&[(ESTABLISHED, false), (FIN_WAIT1, false), (FIN_WAIT2, false), (CLOSE, true)], Some(First::Ours)),
    // FIN and its acknowledgement in one segment.
    (&[(ESTABLISHED, false), (FIN_WAIT1, false), (CLOSE, true)], Some(First::Ours)),
    (&[(ESTABLISHED, false), (FIN_WAIT1, false), (CLOSING, true), (CLOSE, true)], Some(First::Ours)),
    (&[(ESTABLISHED, false), (CLOSE_WAIT, true), (LAST_ACK, true), (CLOSE, true)], Some(First::Theirs)),
    // Given up: no FIN ever came.
    (&[(ESTABLISHED, false), (FIN_WAIT1, false), (FIN_WAIT2, false), (CLOSE, false)], None),
    (&[(ESTABLISHED, false), (CLOSE, false)], None),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Ours,
    Theirs,
}

/// What is kept after the changes in `seen` (a bit each) were seen, a microsecond apart: the first
/// time of each FIN.
fn kept(way: &[(i32, bool)], seen: u32) -> (Option<u64>, Option<u64>) {
    let (mut fin_in, mut fin_out) = (None, None);
    for (n, pair) in way.windows(2).enumerate() {
        let (old, (new, done)) = (pair[0].0, pair[1]);
        if seen & 1 << n == 0 {
            continue;
        }
        let at = 1000 * (n as u64 + 1);
        let told = fins(old, new, done);
        fin_in = fin_in.or(told.fin_in.map(|ago| at - ago));
        fin_out = fin_out.or(told.fin_out.map(|ago| at - ago));
    }
    (fin_in, fin_out)
}

#[test]
fn whichever_changes_were_missed_the_order_of_the_fins_is_not_turned_round() {
    let mut both = 0;
    for (way, first) in WAYS {
        for seen in 0..1 << (way.len() - 1) {
            let (fin_in, fin_out) = kept(way, seen);
            if let (Some(fin_in), Some(fin_out)) = (fin_in, fin_out) {
                both += 1;
                let told = if fin_out < fin_in { First::Ours } else { First::Theirs };
                assert_ne!(fin_in, fin_out, "{way:?}, seen {seen:b}");
                assert_eq!(Some(told), first, "{way:?}, seen {seen:b}");
            }
        }
    }
    assert!(both > 10, "only {both} ways knew both ends");
}

#[test]
fn nothing_is_told_that_the_states_do_not_prove() {
    let nothing = Fins { fin_in: None, fin_out: None };
    assert_eq!(fins(ESTABLISHED, CLOSE, false), nothing);
    assert_eq!(fins(FIN_WAIT2, CLOSE, false), Fins { fin_out: Some(1), ..nothing });
    assert_eq!(fins(ESTABLISHED, CLOSE_WAIT, true), Fins { fin_in: Some(0), ..nothing });
}
