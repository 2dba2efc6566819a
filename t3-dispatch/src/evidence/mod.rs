//! Client of the evidence socket, and lag of the event loop.

pub mod client;
pub mod live_reports;
pub mod loop_lag;
pub mod patience;
pub mod pause;
mod recent;
