//! Which process accepts a connection to a watched port: the return of `inet_csk_accept`. Where the
//! kernel allows no fexit, the first read of the connection by `tcp:tcp_rcv_space_adjust`, which
//! runs for each read of each connection.
//!
//! The process that connects is seen by `probes::state`.

use aya_ebpf::{
    macros::{fexit, raw_tracepoint},
    programs::{FExitContext, RawTracePointContext},
};

use crate::{globals::HAS_ACCEPT_ARG, opener, sock::Sock};

#[fexit(function = "inet_csk_accept")]
pub fn fexit_inet_csk_accept(ctx: FExitContext) -> i32 {
    // The returned socket follows the arguments: before 6.10 these are four.
    let address = if HAS_ACCEPT_ARG.is_set() { ctx.arg(2) } else { ctx.arg(4) };
    accepted(address);
    0
}

#[raw_tracepoint(tracepoint = "tcp_rcv_space_adjust")]
pub fn tcp_rcv_space_adjust(ctx: RawTracePointContext) -> i32 {
    accepted(ctx.arg(0));
    0
}

#[inline(always)]
fn accepted(address: u64) {
    if let Some(sock) = Sock::<false>::watched(address)
        && sock.of_watch
        && !sock.is_outgoing()
    {
        opener::accepted(sock);
    }
}
