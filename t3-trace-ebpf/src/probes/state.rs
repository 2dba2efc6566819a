//! `sock:inet_sock_set_state`: which side sends FIN first, received FINs, and the transition of a
//! socket to CLOSE.
//!
//! The hook runs before the state is stored. Two kinds of transition run in the context of the
//! process that acts: those of `tcp_close_state` (net/ipv4/tcp.c) into FIN_WAIT1 and LAST_ACK, and
//! the direct one from ESTABLISHED or CLOSE_WAIT to CLOSE without `sk_err`, which `tcp_close` makes
//! when data is unread and `tcp_disconnect` makes for SO_LINGER 0. In all others `current` is the
//! process that the packet interrupted.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    facts::{Facts, note},
    maps::OWNERS,
    opener,
    sock::{
        Sock,
        state::{CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT},
    },
    transition::fins,
};

/// Reads the socket without helpers: a third of the cost. Where it does not load,
/// [`inet_sock_set_state`] is attached.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn btf_inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let (old, new) = (ctx.arg(1), ctx.arg(2));
    if old == SYN_SENT || new == SYN_SENT {
        outgoing(ctx.arg(0), old, new, Sock::<true>::any);
    }
    if is_relevant(old, new)
        && let Some(sock) = Sock::<true>::watched(ctx.arg(0))
    {
        handle(sock, old, new);
    }
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: RawTracePointContext) -> i32 {
    let (old, new) = (ctx.arg(1), ctx.arg(2));
    if old == SYN_SENT || new == SYN_SENT {
        outgoing(ctx.arg(0), old, new, Sock::<false>::any);
    }
    if is_relevant(old, new)
        && let Some(sock) = Sock::<false>::watched(ctx.arg(0))
    {
        let is_noted = handle(sock, old, new);
        #[cfg(feature = "log")]
        if is_noted {
            aya_log_ebpf::debug!(&ctx, "state {} to {} noted", old, new);
        }
        #[cfg(not(feature = "log"))]
        let _ = is_noted;
    }
    0
}

/// Whether the change can tell something about a socket, whichever it is.
#[inline(always)]
fn is_relevant(old: i32, new: i32) -> bool {
    match new {
        FIN_WAIT1 | CLOSE | CLOSE_WAIT | LAST_ACK | LISTEN | CLOSING => old != LISTEN,
        // Of a connection to serve; that of its peer tells nothing.
        ESTABLISHED => old == SYN_RECV,
        _ => false,
    }
}

/// A process connects (in its context), or the handshake has ended.
#[inline(always)]
fn outgoing<const DIRECT: bool>(
    address: u64,
    old: i32,
    new: i32,
    sock: impl Fn(u64) -> Option<Sock<DIRECT>>,
) {
    if !opener::is_outgoing_watched() {
        return;
    }
    match (old, new) {
        (CLOSE, SYN_SENT) => opener::connecting(address),
        (SYN_SENT, ESTABLISHED) => {
            if let Some(sock) = sock(address)
                && sock.is_in_watched_namespace()
            {
                // SAFETY: no arguments, cannot fail.
                opener::connected(sock, unsafe { bpf_ktime_get_ns() });
            }
        }
        (SYN_SENT, CLOSE) => opener::failed(address),
        _ => {}
    }
}

/// Says whether something was noted.
#[inline(always)]
fn handle<const DIRECT: bool>(sock: Sock<DIRECT>, old: i32, new: i32) -> bool {
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
