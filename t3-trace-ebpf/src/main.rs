//! The eBPF programs of t3-trace: they record the events that end the sockets of dispatch and
//! serve, and the end of processes.
//!
//! All hooks are raw tracepoints (`BPF_PROG_TYPE_RAW_TRACEPOINT`): they pass the arguments of the
//! tracepoint directly, so the programs depend on no record layout and need no tracefs. The offsets
//! of kernel members come from BTF, through the globals ([`globals`]). Every program always returns
//! 0: it observes and changes nothing.
//!
//! Built only for the BPF target (`cargo xtask build`); for any other it is an empty binary.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    allow(unsafe_code, reason = "eBPF: kernel memory is only reached through helpers")
)]
#![cfg_attr(
    target_arch = "bpf",
    allow(
        clippy::needless_borrows_for_generic_args,
        reason = "the BPF stack has 512 bytes: a map value passes by reference, never by copy"
    )
)]

#[cfg(target_arch = "bpf")]
mod connection;
#[cfg(target_arch = "bpf")]
mod conversation;
#[cfg(target_arch = "bpf")]
mod facts;
#[cfg(target_arch = "bpf")]
mod frames;
#[cfg(target_arch = "bpf")]
mod globals;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod opener;
#[cfg(target_arch = "bpf")]
mod probes;
#[cfg(target_arch = "bpf")]
mod sock;
#[cfg(target_arch = "bpf")]
mod task;
#[cfg(target_arch = "bpf")]
mod transition;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses endless loops: a program in which a panic can be reached does not load.
    loop {}
}

/// `bpf_probe_read_kernel` and the ring buffer are for programs under a GPL-compatible licence.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
