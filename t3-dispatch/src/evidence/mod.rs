//! Client of the evidence socket, and delays of the own event loop.

pub mod client;
pub mod live_reports;
pub mod loop_lag;
