//! Stop signal and drain.

pub mod signal;
