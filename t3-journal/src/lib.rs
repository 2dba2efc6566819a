//! Output of the programs: log lines through `tracing` (tracing-journald under systemd, readable
//! lines on a terminal) and records through a separate writer that neither loses nor reorders them.
//!
//! Neither blocks its caller. tracing-journald alone would: it blocks on a full socket and discards
//! the error of a failed send. So log lines reach it from a separate thread, and records do not go
//! through it at all.

#![warn(missing_docs)]

pub mod log_queue;
pub mod logging;
mod sink;
pub mod writer;

pub use log_queue::drain;
pub use logging::{LogTarget, check_filter, init};
pub use sink::Sink;
pub use writer::{DEFAULT_BOUND, Fields, Outcome, Stats, Writer};
