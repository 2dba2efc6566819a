//! The real kernel side.

use t3_trace_host::kernel::{Kernel, Options};

/// The kernel side for `tcp close` records alone; `None` without the privileges for eBPF, after the
/// reason was printed. In CI that fails.
pub fn load(change: impl FnOnce(&mut Options)) -> Option<Kernel> {
    let mut options = Options { socket_events: false, ..Options::default() };
    change(&mut options);
    match Kernel::load(&options) {
        Ok(kernel) => Some(kernel),
        Err(error) => {
            skip(&format!("{:#}", anyhow::Error::from(error)));
            None
        }
    }
}

/// Prints the reason, or fails in CI.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped: {why}");
    eprintln!("skipped: {why}");
}
