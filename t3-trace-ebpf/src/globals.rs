//! The read-only globals of `t3_trace_abi::globals`, and reading kernel memory by them.

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_buf};
use t3_trace_abi::globals::ABSENT;

/// A global that user space sets before the load. The map behind it is frozen, so the verifier
/// knows its value and removes the branches that do not apply to this kernel.
#[repr(transparent)]
pub struct Global(u16);

impl Global {
    #[inline(always)]
    fn get(&self) -> u16 {
        // SAFETY: a reference to a static. Volatile, because the value in the object is not the one
        // at run time.
        unsafe { core::ptr::read_volatile(&self.0) }
    }

    /// This kernel has it.
    #[inline(always)]
    pub fn present(&self) -> bool {
        self.get() != ABSENT
    }

    /// The flag is set (for the `HAS_` globals).
    #[inline(always)]
    pub fn is_set(&self) -> bool {
        self.get() == 1
    }

    /// The value itself, of a global that is not a place.
    #[inline(always)]
    pub fn value(&self) -> u32 {
        u32::from(self.get())
    }

    /// Bit `self` of `flags`.
    #[inline(always)]
    pub fn bit_of(&self, flags: u64) -> bool {
        let bit = self.get();
        bit < 64 && flags >> bit & 1 == 1
    }

    /// Reads the member at this place of the structure at `base`.
    #[inline(always)]
    pub fn read<T: Copy>(&self, base: u64) -> Option<T> {
        if base == 0 || !self.present() {
            return None;
        }
        let place = (base + u64::from(self.get())) as *const T;
        // SAFETY: the helper checks the address and fails instead of faulting; T is an integer or
        // an array of bytes.
        unsafe { bpf_probe_read_kernel(place) }.ok()
    }

    /// Reads the member into `to`; leaves zeros when it cannot.
    #[inline(always)]
    pub fn read_into(&self, base: u64, to: &mut [u8]) {
        if base != 0 && self.present() {
            let place = (base + u64::from(self.get())) as *const u8;
            // SAFETY: the helper checks the address, and clears `to` when it fails.
            let _ = unsafe { bpf_probe_read_kernel_buf(place, to) };
        }
    }

    /// As [`Self::read_or`], for a structure that the verifier knows if `DIRECT`.
    #[inline(always)]
    pub fn read_of<T: Copy, const DIRECT: bool>(&self, base: u64, absent: T) -> T {
        if !DIRECT {
            return self.read_or(base, absent);
        }
        if self.present() { self.load(base, 0) } else { absent }
    }

    /// Loads from the member, `skip` bytes after its start, without a helper.
    ///
    /// `base` must be an argument of a BTF tracepoint, or a pointer loaded from one: the verifier
    /// checks that the place is in the structure, and a load of an address that is not mapped gives
    /// zero.
    #[inline(always)]
    pub fn load<T: Copy>(&self, base: u64, skip: u64) -> T {
        let place = (base + u64::from(self.get()) + skip) as *const T;
        // SAFETY: as above; T is an integer. Volatile, because LLVM would merge loads of bytes.
        unsafe { core::ptr::read_volatile(place) }
    }

    /// Whether this member of two bytes is followed by `next`.
    #[inline(always)]
    pub fn is_before(&self, next: &Self) -> bool {
        self.present() && next.get() == self.get() + 2
    }

    /// Reads the member, or says `absent`.
    #[inline(always)]
    pub fn read_or<T: Copy>(&self, base: u64, absent: T) -> T {
        self.read(base).unwrap_or(absent)
    }
}

macro_rules! globals {
    ($($name:ident)+) => { $(
        #[unsafe(no_mangle)]
        pub static $name: Global = Global(ABSENT);
    )+ };
}

globals! {
    SK_FAMILY SK_STATE SK_SPORT SK_DPORT SK_NUM SK_COOKIE SK_RCV_SADDR SK_DADDR SK_V6_RCV_SADDR SK_V6_DADDR SK_NET NET_INUM
    SK_FLAGS SK_ERR SK_PROTOCOL
    TP_ACKED TP_SENT TP_RESENT TP_RECEIVED TP_SRTT TP_RETRANS TP_UNACKED TP_LOST
    TASK_TGID TASK_PID TASK_FLAGS TASK_LEADER TASK_COMM TASK_EXIT_CODE TASK_START TASK_SIGNAL
    SIGNAL_LIVE SIGNAL_EXIT_CODE SIGINFO_CODE
    HAS_RST_REASON HAS_RETRANS_ERR HAS_GROUP_DEAD HAS_VICTIM_TASK HAS_ACCEPT_ARG
    SOCK_DONE_BIT SOCKET_EVENTS
    SEQ_WRITTEN SEQ_COPIED SEQ_RECEIVED
    MSG_TYPE MSG_TYPE_WIDE MSG_COUNT MSG_OFFSET MSG_IOV MSG_UBUF MSG_SEGMENTS
    ITER_TYPE_MASK ITER_IOVEC ITER_UBUF
}
