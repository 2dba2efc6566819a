//! A kernel task: who it is. `current` is only asked where the caller knows it means something.

use aya_ebpf::helpers::bpf_get_current_task;
use t3_trace_abi::{Process, Stat, Task};

use crate::{
    globals::{TASK_COMM, TASK_FLAGS, TASK_LEADER, TASK_START, TASK_TGID},
    maps::{PROCESSES, count},
};

/// include/linux/sched.h
const PF_KTHREAD: u32 = 0x0020_0000;

/// Writes who the task at this address is, as a process: thread group id and the leader's name.
/// Threads rename themselves, so the name of the one that happens to run says little.
#[inline(always)]
fn write(address: u64, tgid: u32, to: &mut Task) {
    to.tgid = tgid;
    TASK_COMM.read_into(TASK_LEADER.read_or(address, address), &mut to.comm);
}

/// Writes the process that runs; nothing for a kernel thread, which closes sockets on behalf of
/// others.
#[inline(always)]
pub fn write_current(to: &mut Task) {
    // SAFETY: no arguments, cannot fail.
    let address = unsafe { bpf_get_current_task() };
    if TASK_FLAGS.read_or(address, 0) & PF_KTHREAD == 0 {
        write(address, TASK_TGID.read_or(address, 0), to);
    }
}

/// Nothing has been seen.
static NOTHING: Process = Process::ZERO;

/// The record of the process this task belongs to, fresh if the one at hand is of an earlier
/// process with the same id.
#[inline(always)]
pub fn record(address: u64) -> Option<*mut Process> {
    let tgid = TASK_TGID.read_or(address, 0_u32);
    if tgid == 0 {
        return None;
    }
    let started = TASK_START.read_or(TASK_LEADER.read_or(address, address), 0_u64);
    let known = PROCESSES.get_ptr_mut(tgid);
    let place = match known {
        // SAFETY: as in `facts::update`.
        Some(place) if unsafe { (*place).started_boot } == started => place,
        _ => {
            let _ = PROCESSES.insert(tgid, &NOTHING, 0);
            let Some(place) = PROCESSES.get_ptr_mut(tgid) else {
                count(Stat::ProcessesLost);
                return None;
            };
            // SAFETY: as above.
            unsafe { (*place).started_boot = started };
            place
        }
    };
    // SAFETY: as above. Always, because `exec` renames.
    write(address, tgid, unsafe { &mut (*place).task });
    Some(place)
}
