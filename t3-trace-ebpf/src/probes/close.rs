//! The functions `tcp_close` and `tcp_reset`, by fentry or by kprobe: extra evidence where the
//! kernel allows it.
//!
//! They add the moment of `close` for sockets whose state does not change by it. What the verdict
//! needs comes from the tracepoints, so that it is the same on kernels without these.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use crate::{
    facts::{Facts, note},
    sock::{
        Sock,
        state::{CLOSE, LISTEN},
    },
};

#[fentry(function = "tcp_close")]
pub fn fentry_tcp_close(ctx: FEntryContext) -> i32 {
    close(ctx.arg(0));
    0
}

#[kprobe(function = "tcp_close")]
pub fn kprobe_tcp_close(ctx: ProbeContext) -> u32 {
    close(ctx.arg(0).unwrap_or(0));
    0
}

#[fentry(function = "tcp_reset")]
pub fn fentry_tcp_reset(ctx: FEntryContext) -> i32 {
    reset(ctx.arg(0));
    0
}

#[kprobe(function = "tcp_reset")]
pub fn kprobe_tcp_reset(ctx: ProbeContext) -> u32 {
    reset(ctx.arg(0).unwrap_or(0));
    0
}

#[inline(always)]
fn close(address: u64) {
    if let Some(sock) = Sock::<false>::watched(address) {
        let state = sock.state();
        // After CLOSE, closing the descriptor is tidying up: the one who does it did not end the
        // connection.
        if state != LISTEN && state != CLOSE {
            note(sock, Facts { closed: true, by_current: true, ..Facts::NONE });
        }
    }
}

#[inline(always)]
fn reset(address: u64) {
    if let Some(sock) = Sock::<false>::watched(address) {
        note(sock, Facts { rst_in: true, ..Facts::NONE });
    }
}
