//! Stop signal and drain.

pub mod in_flight;
pub mod signal;
