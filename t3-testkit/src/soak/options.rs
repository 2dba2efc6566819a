//! Flags of `t3-soak`, in this one place.

use clap::Parser;

use crate::chaos::options::Common;

/// Holds thousands of WebSockets open through t3-dispatch, each with a heartbeat every five
/// seconds, then ends them in random ways: none may be dropped, memory has to stay, and every
/// record must be there and right.
#[derive(Debug, Parser)]
#[command(name = "t3-soak", max_term_width = 110)]
#[command(
    after_help = "Exit status: 0 all held and every record right; 1 not, or it could not be run; 2 bad usage."
)]
pub struct Options {
    /// Sessions, all open at the same time. Each takes two descriptors in t3-dispatch.
    #[arg(long, value_name = "N", default_value_t = 9_000, value_parser = clap::value_parser!(u32).range(10..=250_000))]
    pub sessions: u32,
    /// How long they are held once all are open and have had a heartbeat.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub seconds: u64,
    /// Over how many seconds they end.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub closing: u64,
    /// Users, each with a serve.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub users: u32,
    /// Options of `t3-chaos` as well.
    #[command(flatten)]
    pub common: Common,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Options::command().debug_assert();
    }
}
