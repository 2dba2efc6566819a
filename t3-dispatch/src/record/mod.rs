//! One record per session.

pub mod attempts;
pub mod burst;
pub mod close;
pub mod early_evidence;
pub mod not_resumed;
pub mod reconnects;
pub mod recorder;
pub mod serve_versions;
