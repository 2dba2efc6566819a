//! Where our programs write: log lines through `tracing` (tracing-journald under systemd, readable lines on a terminal), and records
//! through a writer of their own that neither loses nor reorders one.
//!
//! Records do not go through tracing-journald because it discards the error of a failed send and blocks the caller on a full
//! socket: a journald that restarts would cost records or stall the relay.

pub mod logging;
pub mod writer;

pub use logging::{Mode, Sink, init};
pub use writer::{Fields, Outcome, Writer};
