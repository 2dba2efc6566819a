//! `tcp:tcp_receive_reset` and `tcp:tcp_send_reset`: RST in and out.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    facts::{Facts, note},
    globals::HAS_RST_REASON,
    sock::{
        Sock,
        state::{LISTEN, NEW_SYN_RECV, TIME_WAIT},
    },
};

#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: RawTracePointContext) -> i32 {
    if let Some(sock) = Sock::<false>::watched(ctx.arg(0)) {
        note(sock, Facts { rst_in: true, ..Facts::NONE });
    }
    0
}

/// Fires for resets in answer to a packet and for active ones (5.3 and newer). From 6.10 on also
/// without a socket: then the connection has been gone for longer than anyone remembers it. The
/// same goes for TIME_WAIT, whose tuple may belong to the next connection already.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: RawTracePointContext) -> i32 {
    if let Some(sock) = Sock::<false>::watched(ctx.arg(0)) {
        let rst_reason = if HAS_RST_REASON.is_set() { ctx.arg::<u32>(2).wrapping_add(1) } else { 0 };
        if !matches!(sock.state(), LISTEN | TIME_WAIT | NEW_SYN_RECV) {
            note(sock, Facts { rst_out: true, rst_reason, ..Facts::NONE });
        }
    }
    0
}
