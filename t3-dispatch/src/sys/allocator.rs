//! Returns memory of the allocator to the kernel. The allocator of the static program keeps pages
//! of each thread, also when no block in them is in use, until that thread collects them.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU32, Ordering},
};

/// Number of requests.
static REQUESTED: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Requests that this thread has carried out.
    static CARRIED_OUT: Cell<u32> = const { Cell::new(0) };
}

/// Requests that each worker of the runtime returns memory when it is idle next.
pub fn return_memory() {
    REQUESTED.fetch_add(1, Ordering::Relaxed);
}

/// Called by a worker before it waits for work.
pub fn worker_is_idle() {
    let requested = REQUESTED.load(Ordering::Relaxed);
    if CARRIED_OUT.replace(requested) != requested {
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
    fn a_worker_carries_out_a_request_once() {
        // Other tests of this process may request it, too.
        let pending = || CARRIED_OUT.get() != REQUESTED.load(Ordering::Relaxed);
        return_memory();
        assert!(pending());
        worker_is_idle();
        assert!(CARRIED_OUT.get() > 0);
        std::thread::spawn(|| {
            assert_eq!(CARRIED_OUT.get(), 0, "each worker has its own memory");
            worker_is_idle();
            assert!(CARRIED_OUT.get() > 0);
        })
        .join()
        .unwrap();
    }
}
