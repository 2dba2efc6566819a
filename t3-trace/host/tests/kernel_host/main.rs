//! Real programs in the running kernel, real loopback sockets, a real process as `t3 serve`. The
//! test is dispatch.
//!
//! Needs root (or the capabilities), BTF and the eBPF object (`cargo xtask build`). Where one is
//! missing each test says so and passes, unless the environment variable `CI` is set: then it
//! fails.
//!
//!     cargo test -p t3-trace --test kernel_host -- --nocapture

#![expect(clippy::unwrap_used, clippy::panic, reason = "what the tests share may fail like they do")]

mod bench;
mod serve;

mod count;
mod endings;
mod hooks;
mod oom;
mod processes;
