//! `tcp_sendmsg` and `tcp_recvmsg`: the Close frames of plain-text WebSockets on the ports where
//! they are read. Attached only if there is such a port.
//!
//! The bytes of a call are those of its buffer, as many as it returns: the entry keeps where the
//! buffer is, the return reads the headers in it ([`crate::frames`]). The kernel's own counters
//! (`write_seq`, `copied_seq`) must agree before and after each call. What goes past these
//! functions (sendfile, splice, a kernel buffer, a call whose return was not seen, two calls at a
//! time) then shows as a gap, and the direction is lost.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_probe_read_user,
        generated::bpf_probe_read_user as read_user,
    },
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use t3_trace_abi::{CloseFrames, TupleGen, WebSocket};

use crate::{
    conversation::{Call, Conversation, NO_CALL},
    frames::{HEAD, MOST, Stream},
    globals::{
        ITER_IOVEC, ITER_TYPE_MASK, ITER_UBUF, MSG_COUNT, MSG_IOV, MSG_OFFSET, MSG_SEGMENTS, MSG_TYPE,
        MSG_TYPE_WIDE, MSG_UBUF, SEQ_COPIED, SEQ_RECEIVED, SEQ_WRITTEN,
    },
    maps::{CALLS, WEBSOCKETS},
};

/// Pieces of one call that are followed: 16 bytes of an HTTP head, and headers, payloads and
/// segments of the buffer. A direction with more in a call is lost.
const HEAD_PIECES: u32 = 64;
/// See [`HEAD_PIECES`].
const PIECES: u32 = 128;

static NEW: Conversation = Conversation {
    generation: 0,
    received: Stream::NEW,
    sent: Stream::NEW,
    receiving: NO_CALL,
    sending: NO_CALL,
    received_at: 0,
    sent_at: 0,
    is_open: 0,
    pad: 0,
};

#[fentry(function = "tcp_sendmsg")]
pub fn fentry_tcp_sendmsg(ctx: FEntryContext) -> i32 {
    enter::<true>(ctx.arg(0), ctx.arg(1));
    0
}

#[fexit(function = "tcp_sendmsg")]
pub fn fexit_tcp_sendmsg(ctx: FExitContext) -> i32 {
    leave::<true>(ctx.arg(0), ctx.arg(3));
    0
}

#[fentry(function = "tcp_recvmsg")]
pub fn fentry_tcp_recvmsg(ctx: FEntryContext) -> i32 {
    enter::<false>(ctx.arg(0), ctx.arg(1));
    0
}

#[fexit(function = "tcp_recvmsg")]
pub fn fexit_tcp_recvmsg_5(ctx: FExitContext) -> i32 {
    leave::<false>(ctx.arg(0), ctx.arg(5));
    0
}

/// Newer kernels pass no address.
#[fexit(function = "tcp_recvmsg")]
pub fn fexit_tcp_recvmsg_4(ctx: FExitContext) -> i32 {
    leave::<false>(ctx.arg(0), ctx.arg(4));
    0
}

/// Before 5.19 the function has one more argument (`nonblock`).
#[fexit(function = "tcp_recvmsg")]
pub fn fexit_tcp_recvmsg_6(ctx: FExitContext) -> i32 {
    leave::<false>(ctx.arg(0), ctx.arg(6));
    0
}

#[kprobe(function = "tcp_sendmsg")]
pub fn kprobe_tcp_sendmsg(ctx: ProbeContext) -> u32 {
    enter_probe::<true>(ctx.arg(0).unwrap_or(0), ctx.arg(1).unwrap_or(0));
    0
}

#[kretprobe(function = "tcp_sendmsg")]
pub fn kretprobe_tcp_sendmsg(ctx: RetProbeContext) -> u32 {
    leave_probe::<true>(ctx.ret());
    0
}

#[kprobe(function = "tcp_recvmsg")]
pub fn kprobe_tcp_recvmsg(ctx: ProbeContext) -> u32 {
    enter_probe::<false>(ctx.arg(0).unwrap_or(0), ctx.arg(1).unwrap_or(0));
    0
}

#[kretprobe(function = "tcp_recvmsg")]
pub fn kretprobe_tcp_recvmsg(ctx: RetProbeContext) -> u32 {
    leave_probe::<false>(ctx.ret());
    0
}

/// A connection to such a port was established: it is followed from its first byte.
#[inline(always)]
pub fn established(sock: u64, generation: u64) {
    if WEBSOCKETS.insert(&sock, &NEW, 0).is_err() {
        return;
    }
    let Some(place) = WEBSOCKETS.get_ptr_mut(&sock) else { return };
    // SAFETY: a map value; no other program has this socket yet.
    let conversation = unsafe { &mut *place };
    conversation.sent.next = SEQ_WRITTEN.read_or(sock, 0);
    conversation.received.next = SEQ_COPIED.read_or(sock, 0);
    conversation.generation = generation;
}

/// The connection is gone.
#[inline(always)]
pub fn gone(sock: u64) {
    let _ = WEBSOCKETS.remove(&sock);
}

/// Writes what was seen of the connection of this generation. `fin_in`, `fin_out`: the FINs, which
/// count as bytes.
///
/// # Safety
/// `to` is valid for writes and was initialised.
#[inline(always)]
pub unsafe fn write_frames(sock: u64, end: &TupleGen, fin_in: bool, fin_out: bool, to: *mut CloseFrames) {
    let Some(place) = WEBSOCKETS.get_ptr(&sock) else { return };
    // SAFETY: a map value stays readable while the program runs.
    let conversation = unsafe { &*place };
    // Another one of this address was not seen to end, or not seen to begin.
    if conversation.is_open == 0 || conversation.generation != end.generation || end.generation == 0 {
        return;
    }
    let (received, sent) = (&conversation.received, &conversation.sent);
    let copied = SEQ_COPIED.read_or(sock, 0);
    let unread = SEQ_RECEIVED.read_or(sock, u32::MAX).wrapping_sub(copied);
    // Bytes that went another way.
    let not_read = copied.wrapping_sub(received.next);
    let not_sent = SEQ_WRITTEN.read_or(sock, u32::MAX).wrapping_sub(sent.next);
    let mut flags = WebSocket::OPEN;
    if !received.is_complete() || not_read > u32::from(fin_in) {
        flags |= WebSocket::LOST_RECEIVED;
    }
    if unread > u32::from(fin_in) {
        flags |= WebSocket::UNREAD;
    }
    if !sent.is_complete() || not_sent > u32::from(fin_out) {
        flags |= WebSocket::LOST_SENT;
    }
    // SAFETY: the caller's promise.
    unsafe {
        (*to).received = conversation.received_at;
        (*to).sent = conversation.sent_at;
        (*to).received_code = received.code();
        (*to).sent_code = sent.code();
        (*to).flags = flags;
    }
}

#[inline(always)]
fn enter_probe<const SENT: bool>(sock: u64, message: u64) {
    if enter::<SENT>(sock, message) {
        let task = bpf_get_current_pid_tgid();
        let _ = CALLS.insert(&task, &sock, 0);
    }
}

#[inline(always)]
fn leave_probe<const SENT: bool>(result: i32) {
    let task = bpf_get_current_pid_tgid();
    // SAFETY: a value that is written whole; it is copied here.
    let Some(sock) = unsafe { CALLS.get(&task) }.copied() else { return };
    let _ = CALLS.remove(&task);
    leave::<SENT>(sock, result);
}

/// Says whether the call is one to follow.
#[inline(always)]
fn enter<const SENT: bool>(sock: u64, message: u64) -> bool {
    let Some(place) = WEBSOCKETS.get_ptr_mut(&sock) else { return false };
    // SAFETY: a map value stays readable while the program runs. Each direction has one writer, or
    // the counters show it.
    let conversation = unsafe { &mut *place };
    let (stream, call) = if SENT {
        (&mut conversation.sent, &mut conversation.sending)
    } else {
        (&mut conversation.received, &mut conversation.receiving)
    };
    if stream.is_over() {
        return false;
    }
    let start = counter::<SENT>(sock);
    if start != stream.next {
        stream.lose();
        return false;
    }
    call.task = bpf_get_current_pid_tgid();
    // SAFETY: no arguments, cannot fail.
    call.at = unsafe { bpf_ktime_get_ns() };
    call.message = message;
    call.start = start;
    call.count = MSG_COUNT.read_or(message, 0);
    call.offset = MSG_OFFSET.read_or(message, 0);
    let kind = if MSG_TYPE_WIDE.present() {
        MSG_TYPE_WIDE.read_or(message, u32::MAX)
    } else {
        u32::from(MSG_TYPE.read_or(message, u8::MAX))
    };
    let kind = kind & ITER_TYPE_MASK.value();
    call.is_readable = 1;
    if ITER_UBUF.present() && kind == ITER_UBUF.value() {
        call.address = MSG_UBUF.read_or(message, 0_u64) + call.offset;
        call.in_segment = call.count;
        call.segments = 0;
    } else if ITER_IOVEC.present() && kind == ITER_IOVEC.value() {
        call.in_segment = 0;
        call.segment = MSG_IOV.read_or(message, 0);
        call.segments = MSG_SEGMENTS.read_or(message, 0);
    } else {
        call.is_readable = 0;
    }
    true
}

#[inline(always)]
fn leave<const SENT: bool>(sock: u64, result: i32) {
    let Some(place) = WEBSOCKETS.get_ptr_mut(&sock) else { return };
    // SAFETY: as in `enter`.
    let conversation = unsafe { &mut *place };
    let is_sending = conversation.sending.task != 0;
    let is_open = conversation.is_open != 0;
    let (stream, call, close_at) = if SENT {
        (&mut conversation.sent, &mut conversation.sending, &mut conversation.sent_at)
    } else {
        (&mut conversation.received, &mut conversation.receiving, &mut conversation.received_at)
    };
    if stream.is_over() || call.task != bpf_get_current_pid_tgid() {
        return;
    }
    call.task = 0;
    let end = counter::<SENT>(sock);
    let counted = end.wrapping_sub(call.start);
    if result <= 0 {
        // The peer's FIN counts as a byte.
        if !SENT && result == 0 && counted == 1 {
            stream.next = end;
        }
        return;
    }
    let length = result as u32;
    if !SENT && counted == 0 {
        // MSG_PEEK: it is read once more.
        return;
    }
    let copied = call.count.wrapping_sub(MSG_COUNT.read_or(call.message, u64::MAX));
    // With MSG_TRUNC nothing is copied.
    if copied != u64::from(length) || counted != length && (SENT || counted != length.wrapping_add(1)) {
        stream.lose();
        return;
    }
    stream.next = end;
    if !SENT {
        if is_open {
            stream.end_head();
        } else if is_sending && stream.phase() == HEAD {
            // Before or after the answer to the handshake.
            stream.lose();
            return;
        }
    }
    if call.is_readable == 0 {
        if stream.can_pass(u64::from(length)) {
            stream.pass(u64::from(length));
        } else {
            stream.lose();
        }
        return;
    }
    call.left = u64::from(length);
    let was_start = SENT && stream.phase() < HEAD;
    let mut pieces = 0;
    while pieces < HEAD_PIECES {
        if call.left == 0 || stream.phase() > HEAD {
            break;
        }
        head_piece::<SENT>(stream, call);
        pieces += 1;
    }
    pieces = 0;
    while pieces < PIECES {
        if call.left == 0 || stream.phase() <= HEAD || stream.is_over() {
            break;
        }
        if piece::<SENT>(stream, call) {
            // SAFETY: no arguments, cannot fail.
            *close_at = if SENT { call.at } else { unsafe { bpf_ktime_get_ns() } };
        }
        pieces += 1;
    }
    if call.left != 0 && !stream.is_over() {
        stream.lose();
    }
    let is_lost = stream.is_over();
    if was_start && stream.phase() >= HEAD {
        if !is_lost && conversation.received.phase() == HEAD {
            conversation.is_open = 1;
        } else {
            conversation.sent.refuse();
            conversation.received.refuse();
        }
    }
}

/// Follows the next piece of a call before the frames.
#[inline(always)]
fn head_piece<const SENT: bool>(stream: &mut Stream, call: &mut Call) {
    if call.in_segment == 0 {
        next_segment(stream, call);
        return;
    }
    let there = call.there();
    let wanted = stream.wants_of_head(SENT);
    if wanted == 0 {
        let mut from_end = if there < 4 { there } else { 4 };
        let mut n = 0;
        while n < 4 && from_end > 0 {
            // SAFETY: the helper checks the address and fails instead of faulting.
            let byte = unsafe { bpf_probe_read_user((call.address + there - from_end) as *const u8) };
            stream.pass_head(byte.unwrap_or(0));
            from_end -= 1;
            n += 1;
        }
        call.advance(there);
        return;
    }
    let count = read(stream, call, wanted);
    if count != 0 {
        let used = stream.push_head(count, SENT);
        call.advance(u64::from(used));
    }
}

/// Follows the next piece of a call in the frames; says whether the Close frame ends in it.
#[inline(always)]
fn piece<const SENT: bool>(stream: &mut Stream, call: &mut Call) -> bool {
    if call.in_segment == 0 {
        next_segment(stream, call);
        return false;
    }
    let wanted = stream.wants();
    if wanted == 0 {
        let passed = stream.pass(call.there());
        call.advance(passed);
        return false;
    }
    let count = read(stream, call, wanted);
    if count == 0 {
        return false;
    }
    call.advance(u64::from(count));
    stream.push(count, SENT)
}

/// Reads up to `wanted` bytes; returns how many. 0: it is lost.
#[inline(always)]
fn read(stream: &mut Stream, call: &Call, wanted: u32) -> u32 {
    let there = call.there();
    // Not more than `wanted`, so it fits.
    let count = if u64::from(wanted) < there { wanted } else { (there & 0xffff_ffff) as u32 };
    let (place, count) = (stream.have() & (MOST - 1), bounded(count));
    let to = stream.bytes.as_mut_ptr().wrapping_add(place as usize);
    // SAFETY: up to 16 bytes at a place up to 15 of 32. The helper checks the address and fails
    // instead of faulting.
    if unsafe { read_user(to.cast(), count, call.address as *const _) } != 0 {
        stream.lose();
        return 0;
    }
    count
}

/// At least 1 and at most 16, in a form that the verifier follows.
#[inline(always)]
fn bounded(count: u32) -> u32 {
    // SAFETY: a local variable. Volatile, so that LLVM does not remove the bounds it knows of.
    let count = unsafe { core::ptr::read_volatile(&count) };
    if count > MOST { MOST } else { count }
}

#[inline(always)]
fn next_segment(stream: &mut Stream, call: &mut Call) {
    // SAFETY: the helper checks the address and fails instead of faulting.
    let segment = unsafe { bpf_probe_read_kernel(call.segment as *const [u64; 2]) };
    match segment {
        Ok([base, length]) if call.segments > 0 && length >= call.offset => {
            call.address = base + call.offset;
            call.in_segment = length - call.offset;
            call.offset = 0;
            call.segments -= 1;
            call.segment += 16;
        }
        _ => stream.lose(),
    }
}

/// The kernel's counter of bytes in this direction.
#[inline(always)]
fn counter<const SENT: bool>(sock: u64) -> u32 {
    if SENT { SEQ_WRITTEN.read_or(sock, 0) } else { SEQ_COPIED.read_or(sock, 0) }
}
