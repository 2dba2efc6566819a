//! The process at an end of a watched connection: it accepted or connected.

use core::arch::asm;

use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use t3_trace_abi::{Opener, Port, Stat, Tuple};

use crate::{
    maps::{CGROUPS, CONNECTING, GENERATION, OPENERS, OUTGOING, PORTS, PROXIES, count},
    sock::{self, Sock},
    task,
};

const BPF_NOEXIST: u64 = 1;

/// Outgoing connections are watched.
#[inline(always)]
pub fn is_outgoing_watched() -> bool {
    PORTS.get_ptr(0).is_some_and(|table| {
        // SAFETY: the table has a byte for every u16.
        unsafe { *table.cast::<u8>() & Port::OUTGOING != 0 }
    })
}

/// `current` accepted the connection, or read from it first.
#[inline(always)]
pub fn accepted(sock: Sock<false>) {
    let mut tuple = Tuple::ZERO;
    sock.write_tuple(&mut tuple);
    // SAFETY: only whether they are there matters.
    let is_new = unsafe { GENERATION.get(&tuple).is_some() && OPENERS.get(&tuple).is_none() };
    if !is_new {
        return;
    }
    let mut opener = Opener::ZERO;
    write_current(&mut opener);
    if opener.task.tgid == 0 {
        return;
    }
    if OPENERS.insert(&tuple, &opener, BPF_NOEXIST).is_err() {
        count(Stat::SocketsLost);
    }
    if sock.of_proxy {
        let _ = PROXIES.insert(opener.task.tgid, 1, 0);
    }
}

/// `current` connects the socket at this address.
#[inline(always)]
pub fn connecting(address: u64) {
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: only whether they are there matters; the other helper has no arguments.
    let is_watched =
        unsafe { PROXIES.get(process).is_some() || CGROUPS.get(bpf_get_current_cgroup_id()).is_some() };
    if is_watched {
        let mut opener = Opener::ZERO;
        write_current(&mut opener);
        let _ = CONNECTING.insert(address, &opener, 0);
    }
}

/// The connection of the socket at this address failed.
#[inline(always)]
pub fn failed(address: u64) {
    let _ = CONNECTING.remove(address);
}

/// The socket is connected; watched from now on if [`connecting`] knows it.
#[inline(always)]
pub fn connected<const DIRECT: bool>(sock: Sock<DIRECT>, at: u64) {
    let Some(opener) = CONNECTING.get_ptr(sock.address()) else { return };
    let mut tuple = Tuple::ZERO;
    sock.write_tuple(&mut tuple);
    // SAFETY: as in `facts::update`, a map value stays readable.
    let is_noted = OPENERS.insert(&tuple, unsafe { &*opener }, 0).is_ok();
    let _ = CONNECTING.remove(sock.address());
    if is_noted {
        sock::established(&tuple, at);
        add(sock.local_port(), 1);
    } else {
        count(Stat::SocketsLost);
    }
}

/// The connection is gone.
#[inline(always)]
pub fn gone(tuple: &Tuple, local_port: u16, is_outgoing: bool) {
    if OPENERS.remove(tuple).is_ok() && is_outgoing {
        add(local_port, u64::MAX);
    }
}

/// Adds to the number of connections from a port, with overflow.
#[inline(always)]
fn add(local_port: u16, number: u64) {
    if let Some(counter) = OUTGOING.get_ptr_mut(u32::from(local_port)) {
        // SAFETY: a value of an array map, aligned to 8; all CPUs change it by this only. `core`
        // has no addition for atomic integers on this target, which has no compare-and-swap.
        unsafe {
            asm!(
                "lock *(u64 *)({counter} + 0) += {number}",
                counter = in(reg) counter,
                number = in(reg) number
            );
        }
    }
}

#[inline(always)]
fn write_current(opener: &mut Opener) {
    // SAFETY: no arguments, cannot fail.
    unsafe {
        opener.at = bpf_ktime_get_ns();
        opener.cgroup = bpf_get_current_cgroup_id();
    }
    task::write_current(&mut opener.task);
}
