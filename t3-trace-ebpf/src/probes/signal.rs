//! `signal:signal_generate`: the sender of a fatal signal. `current` is the sender if the code of
//! the signal says that a process sent it.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use t3_trace_abi::Task;

use crate::{
    globals::{SIGINFO_CODE, TASK_PID, TASK_TGID},
    maps::VICTIMS,
    task,
};

// Numbers of x86-64 and arm64 (include/uapi/asm-generic/signal.h).
const SIGKILL: u32 = 9;
/// Signals whose default action is not to end the process: SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP,
/// SIGTTIN, SIGTTOU, SIGURG, SIGWINCH.
const HARMLESS: u64 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 28;

/// `TRACE_SIGNAL_DELIVERED` (include/trace/events/signal.h): neither ignored nor already pending.
const DELIVERED: i32 = 0;

// include/uapi/asm-generic/siginfo.h: the codes of signals that a process sent.
const SI_USER: i32 = 0;
const SI_QUEUE: i32 = -1;
const SI_TKILL: i32 = -6;
const SI_KERNEL: i32 = 0x80;

#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn signal_generate(ctx: RawTracePointContext) -> i32 {
    let signal: u32 = ctx.arg(0);
    if signal == 0 || signal > 64 || ctx.arg::<i32>(4) != DELIVERED {
        return 0;
    }
    if signal < 32 && HARMLESS >> signal & 1 == 1 {
        return 0;
    }
    handle(signal, ctx.arg(1), ctx.arg(2));
    0
}

#[inline(always)]
fn handle(signal: u32, info: u64, target: u64) {
    // Not addresses: SEND_SIG_NOINFO is 0 and means the current process, SEND_SIG_PRIV is 1 and
    // means the kernel.
    let code = match info {
        0 => SI_USER,
        1 => SI_KERNEL,
        _ => SIGINFO_CODE.read_or(info, SI_KERNEL),
    };
    let by_process = matches!(code, SI_USER | SI_QUEUE | SI_TKILL);
    if signal == SIGKILL && !by_process {
        let _ = VICTIMS.insert(TASK_PID.read_or(target, 0_u32), TASK_TGID.read_or(target, 0_u32), 0);
    }
    let Some(place) = task::record(target) else { return };
    // SAFETY: as in `facts::update`; signals of one process are sent under its lock.
    let process = unsafe { &mut *place };
    // Nothing that comes after a SIGKILL changes what the process dies of.
    if process.ended != 0 || process.signal == SIGKILL {
        return;
    }
    process.signal = signal;
    // SAFETY: no arguments, cannot fail.
    process.signalled = unsafe { bpf_ktime_get_ns() };
    process.sender = Task::ZERO;
    if by_process {
        task::write_current(&mut process.sender);
    }
}
