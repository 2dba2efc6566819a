//! `sched:sched_process_exit` and `oom:mark_victim`: how a process ended.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use t3_trace_abi::Kind;

use crate::{
    globals::{
        HAS_GROUP_DEAD, HAS_VICTIM_TASK, SIGNAL_EXIT_CODE, SIGNAL_LIVE, TASK_EXIT_CODE, TASK_LEADER,
        TASK_SIGNAL,
    },
    maps::{OWNERS, PROCESSES, VICTIMS, emit},
    task,
};

/// Fires for each thread; only the last one ends the process.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(ctx: RawTracePointContext) -> i32 {
    let address: u64 = ctx.arg(0);
    let signal = TASK_SIGNAL.read_or(address, 0_u64);
    let last = if HAS_GROUP_DEAD.is_set() {
        ctx.arg::<u64>(1) & 0xff != 0
    } else {
        // `do_exit` has counted this thread off already. Two last threads may both see zero: that
        // does no harm.
        SIGNAL_LIVE.read_or(signal, 0_i32) == 0
    };
    if last {
        ended(address, signal);
    }
    0
}

#[inline(always)]
fn ended(address: u64, signal: u64) {
    let Some(place) = task::record(address) else { return };
    // Set by exit_group and by fatal signals; without them the leader's own code is what `wait`
    // gives.
    let code = match SIGNAL_EXIT_CODE.read_or(signal, 0_u32) {
        0 => TASK_EXIT_CODE.read_or(TASK_LEADER.read_or(address, address), 0),
        code => code,
    };
    // SAFETY: as in `facts::update`; a process ends once.
    let process = unsafe { &mut *place };
    // SAFETY: no arguments, cannot fail.
    let at = unsafe { bpf_ktime_get_ns() };
    process.exit_code = code;
    if process.ended == 0 {
        process.ended = at;
        // SAFETY: only whether it is there matters.
        if unsafe { OWNERS.get(process.task.tgid) }.is_some() {
            emit(at, Kind::Exit, process.task.tgid, code, 0, None);
        }
    }
}

#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim(ctx: RawTracePointContext) -> i32 {
    let place = if HAS_VICTIM_TASK.is_set() {
        task::record(ctx.arg(0))
    } else {
        let thread: u32 = ctx.arg(0);
        // The OOM killer has just sent SIGKILL (`__oom_kill_process`); the signal hook stored the
        // process of this thread. SAFETY: writers replace the complete value; it is copied here.
        let tgid = unsafe { VICTIMS.get(thread) }.copied().unwrap_or(thread);
        PROCESSES.get_ptr_mut(tgid)
    };
    if let Some(place) = place {
        // SAFETY: as in `facts::update`.
        let process = unsafe { &mut *place };
        // SAFETY: no arguments, cannot fail.
        let at = unsafe { bpf_ktime_get_ns() };
        process.oom = at;
        emit(at, Kind::Oom, process.task.tgid, 0, 0, None);
    }
    0
}
