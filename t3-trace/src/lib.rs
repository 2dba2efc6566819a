//! Command line of `t3-trace`; the commands are in t3-trace-daemon and t3-trace-cli.

pub mod cli;
pub mod watch;
