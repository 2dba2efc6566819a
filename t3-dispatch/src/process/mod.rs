//! Start, signals, reload and systemd.

pub mod fd_limit;
pub mod file_watch;
mod memory;
pub mod reload;
pub mod restart;
pub mod run;
mod signals;
pub mod systemd;
