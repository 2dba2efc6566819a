//! Options of `t3-soak`.

use clap::Parser;

use crate::chaos::options::Common;

/// Holds thousands of WebSockets open through t3-dispatch, each with a heartbeat every 5 s, then
/// ends them in random ways: none may be dropped, memory must be constant, and every record must be
/// right
#[derive(Debug, Parser)]
#[command(name = "t3-soak", max_term_width = 110)]
#[command(
    after_help = "Exit status: 0 all held and every record right; 1 a mismatch or a runtime failure; 2 usage error."
)]
pub struct Options {
    /// Concurrent sessions; each needs two descriptors in t3-dispatch
    #[arg(long, value_name = "N", default_value_t = 9_000, value_parser = clap::value_parser!(u32).range(10..=250_000))]
    pub sessions: u32,
    /// Seconds to hold them after the first heartbeats
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub seconds: u64,
    /// Seconds over which they end
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub closing: u64,
    /// Seconds after the last session until memory is measured; then t3-dispatch may have 2 MiB
    /// more anonymous memory than before the first session. It returns memory once a minute, and
    /// remembers a session for a minute, so 130 or more. 0: memory may stay
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub settle: u64,
    /// Number of users, each with a serve
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub users: u32,
    /// Do not measure memory at every limit
    #[arg(long)]
    pub without_limits: bool,
    #[command(flatten)]
    pub common: Common,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_options_are_consistent() {
        Options::command().debug_assert();
    }
}
