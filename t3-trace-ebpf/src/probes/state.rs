//! `sock:inet_sock_set_state`: which side sends FIN first, received FINs, and the transition of a
//! socket to CLOSE.
//!
//! The hook runs before the state is stored. Two kinds of transition run in the context of the
//! process that acts: those of `tcp_close_state` (net/ipv4/tcp.c) into FIN_WAIT1 and LAST_ACK, and
//! the direct one from ESTABLISHED or CLOSE_WAIT to CLOSE without `sk_err`, which `tcp_close` makes
//! when data is unread and `tcp_disconnect` makes for SO_LINGER 0. In all others `current` is the
//! process that the packet interrupted.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    facts::{Facts, note},
    maps::OWNERS,
    sock::{
        Sock,
        state::{CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT},
    },
    transition::fins,
};

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: RawTracePointContext) -> i32 {
    let (old, new) = (ctx.arg(1), ctx.arg(2));
    if handle(ctx.arg(0), old, new) {
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!(&ctx, "state {} to {} noted", old, new);
    }
    0
}

/// Says whether something was noted.
#[inline(always)]
fn handle(address: u64, old: i32, new: i32) -> bool {
    if !matches!(new, ESTABLISHED | FIN_WAIT1 | CLOSE | CLOSE_WAIT | LAST_ACK | LISTEN | CLOSING)
        || old == LISTEN
    {
        return false;
    }
    let Some(sock) = Sock::watched(address) else { return false };
    if !sock.is_tcp() {
        return false;
    }
    if new == LISTEN {
        // `listen` runs in the process that will own the connections.
        if sock.of_serve {
            let owner = (bpf_get_current_pid_tgid() >> 32) as u32;
            let _ = OWNERS.insert(owner, 1, 0);
        }
        return false;
    }
    if new == ESTABLISHED && old != SYN_RECV {
        return false;
    }
    let error = if new == CLOSE { sock.error() } else { 0 };
    let fins = fins(old, new, new == CLOSE && sock.done());
    let facts = Facts {
        established: new == ESTABLISHED,
        fin_in: fins.fin_in,
        fin_out: fins.fin_out,
        error,
        closed: new == CLOSE,
        gone: new == CLOSE,
        by_current: match new {
            FIN_WAIT1 | LAST_ACK => true,
            CLOSE => error == 0 && matches!(old, ESTABLISHED | CLOSE_WAIT | SYN_SENT),
            _ => false,
        },
        ..Facts::NONE
    };
    note(sock, facts);
    true
}
