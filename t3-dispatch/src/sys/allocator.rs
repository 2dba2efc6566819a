//! Returns memory of the allocator to the kernel. The allocator of the static program keeps pages
//! of each thread, also when no block in them is in use, until that thread collects them.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU32, Ordering},
};

/// Requests to return memory, which each thread carries out once.
#[derive(Debug)]
struct Requests(AtomicU32);

impl Requests {
    /// Whether there was a request since the one that a thread has carried out last; notes it.
    fn is_due(&self, carried_out: &Cell<u32>) -> bool {
        let requested = self.0.load(Ordering::Relaxed);
        carried_out.replace(requested) != requested
    }
}

static REQUESTS: Requests = Requests(AtomicU32::new(0));

thread_local! {
    /// Number of the request that this thread has carried out last.
    static CARRIED_OUT: Cell<u32> = const { Cell::new(0) };
}

/// Requests that each worker of the runtime returns memory when it is idle next.
pub fn return_memory() {
    REQUESTS.0.fetch_add(1, Ordering::Relaxed);
}

/// Called by a worker before it waits for work.
pub fn worker_is_idle() {
    if CARRIED_OUT.with(|carried_out| REQUESTS.is_due(carried_out)) {
        collect();
    }
}

#[cfg(target_env = "musl")]
#[expect(unsafe_code, reason = "a function of the allocator, written in C")]
fn collect() {
    // SAFETY: it has no requirements, and affects only memory that is not in use.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// The allocator of glibc returns memory by itself.
#[cfg(not(target_env = "musl"))]
const fn collect() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_carries_out_a_request_once() {
        let requests = Requests(AtomicU32::new(0));
        let (one, another) = (Cell::new(0), Cell::new(0));
        assert!(!requests.is_due(&one), "no request");
        requests.0.fetch_add(2, Ordering::Relaxed);
        assert!(requests.is_due(&one) && !requests.is_due(&one), "two requests are one");
        assert!(requests.is_due(&another), "its own memory");
        requests.0.fetch_add(1, Ordering::Relaxed);
        assert!(requests.is_due(&one));
    }
}
