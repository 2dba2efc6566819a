//! Real eBPF programs in the running kernel, real loopback sockets, a real process as `t3 serve`.
//! The test is dispatch.
//!
//! Needs root (or the capabilities), BTF and the eBPF object (`cargo xtask build`). If one is
//! missing, each test prints the reason and passes, or fails if the environment variable `CI` is
//! set.
//!
//!     cargo test -p t3-trace-host --test kernel_host -- --nocapture

#![expect(clippy::unwrap_used, clippy::panic, reason = "the fixture may fail like a test")]

mod fixture;
mod serve;

mod connections;
mod count;
mod endings;
mod flood;
mod hooks;
mod oom;
mod processes;
