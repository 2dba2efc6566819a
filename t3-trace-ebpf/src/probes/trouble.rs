//! `sock:inet_sk_error_report` (5.15 and newer) and `tcp:tcp_retransmit_skb`: a socket's error when
//! it is set, and loss.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    facts::{Facts, note},
    globals::HAS_RETRANS_ERR,
    sock::Sock,
};

#[raw_tracepoint(tracepoint = "inet_sk_error_report")]
pub fn inet_sk_error_report(ctx: RawTracePointContext) -> i32 {
    if let Some(sock) = Sock::<false>::watched(ctx.arg(0))
        && sock.is_tcp()
    {
        // Zero for a report of the error queue, which is not the connection's end.
        let error = sock.error();
        if error != 0 {
            note(sock, Facts { error, ..Facts::NONE });
        }
    }
    0
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: RawTracePointContext) -> i32 {
    // Newer kernels tell of retransmissions that never left, too.
    if HAS_RETRANS_ERR.is_set() && ctx.arg::<i32>(2) != 0 {
        return 0;
    }
    if let Some(sock) = Sock::<false>::watched(ctx.arg(0)) {
        note(sock, Facts { retrans: 1, ..Facts::NONE });
    }
    0
}
