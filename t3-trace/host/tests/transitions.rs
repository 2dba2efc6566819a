//! The order of the two FINs is correct even if the kernel skips runs of the state hook. Compiles
//! the transition rule of the eBPF program.

/// Path under which the rule imports the states.
mod sock {
    pub(crate) use super::state;
}
#[path = "../../../t3-trace-ebpf/src/sock/state.rs"]
#[allow(dead_code, reason = "the rule uses only some of the states")]
mod state;
#[path = "../../../t3-trace-ebpf/src/transition.rs"]
mod transition;

use sock::state::{CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK};
use transition::{Fins, fins};

/// States of a connection in order (net/ipv4/tcp.c, tcp_input.c), whether `SOCK_DONE` is set at
/// each change, and whose FIN was first.
type Path = (&'static [(i32, bool)], Option<First>);

const PATHS: [Path; 6] = [
    (&[(ESTABLISHED, false), (FIN_WAIT1, false), (FIN_WAIT2, false), (CLOSE, true)], Some(First::Ours)),
    // FIN and its acknowledgement in one segment.
    (&[(ESTABLISHED, false), (FIN_WAIT1, false), (CLOSE, true)], Some(First::Ours)),
    (&[(ESTABLISHED, false), (FIN_WAIT1, false), (CLOSING, true), (CLOSE, true)], Some(First::Ours)),
    (&[(ESTABLISHED, false), (CLOSE_WAIT, true), (LAST_ACK, true), (CLOSE, true)], Some(First::Theirs)),
    // Timed out: no FIN was received.
    (&[(ESTABLISHED, false), (FIN_WAIT1, false), (FIN_WAIT2, false), (CLOSE, false)], None),
    (&[(ESTABLISHED, false), (CLOSE, false)], None),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Ours,
    Theirs,
}

/// First time of each FIN after the changes in `seen` (one bit each), a microsecond apart, were
/// recorded.
fn kept(path: &[(i32, bool)], seen: u32) -> (Option<u64>, Option<u64>) {
    let (mut fin_in, mut fin_out) = (None, None);
    for (n, pair) in path.windows(2).enumerate() {
        let (old, (new, done)) = (pair[0].0, pair[1]);
        if seen & 1 << n == 0 {
            continue;
        }
        let at = 1000 * (n as u64 + 1);
        let found = fins(old, new, done);
        fin_in = fin_in.or(found.fin_in.map(|ago| at - ago));
        fin_out = fin_out.or(found.fin_out.map(|ago| at - ago));
    }
    (fin_in, fin_out)
}

#[test]
fn skipped_state_changes_do_not_reverse_the_fins() {
    let mut both = 0;
    for (path, first) in PATHS {
        for seen in 0..1 << (path.len() - 1) {
            let (fin_in, fin_out) = kept(path, seen);
            if let (Some(fin_in), Some(fin_out)) = (fin_in, fin_out) {
                both += 1;
                let earlier = if fin_out < fin_in { First::Ours } else { First::Theirs };
                assert_ne!(fin_in, fin_out, "{path:?}, seen {seen:b}");
                assert_eq!(Some(earlier), first, "{path:?}, seen {seen:b}");
            }
        }
    }
    assert!(both > 10, "only {both} paths have both FINs");
}

#[test]
fn only_fins_that_the_states_prove_are_reported() {
    let nothing = Fins { fin_in: None, fin_out: None };
    assert_eq!(fins(ESTABLISHED, CLOSE, false), nothing);
    assert_eq!(fins(FIN_WAIT2, CLOSE, false), Fins { fin_out: Some(1), ..nothing });
    assert_eq!(fins(ESTABLISHED, CLOSE_WAIT, true), Fins { fin_in: Some(0), ..nothing });
}
