//! Where our programs write: log lines through `tracing` (tracing-journald under systemd, readable
//! lines on a terminal), and records through a writer of their own that neither loses nor reorders
//! one.
//!
//! Neither makes its caller wait. tracing-journald by itself would: it blocks on a full socket and
//! discards the error of a failed send, so log lines reach it in a thread of their own, and records
//! do not go through it at all.

pub mod log_queue;
pub mod logging;
mod sink;
pub mod writer;

pub use log_queue::drain;
pub use logging::{Mode, check_filter, init};
pub use sink::Sink;
pub use writer::{DEFAULT_BOUND, Fields, Outcome, Stats, Writer};
