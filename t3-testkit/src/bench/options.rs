//! Options of the benchmark.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum as _, builder::TypedValueParser as _};

use super::{client::Load, contestant::Contestant};

/// Measures memory, CPU and throughput of t3-dispatch and HAProxy
#[derive(Debug, Parser)]
#[command(name = "t3-bench", max_term_width = 110)]
#[command(after_help = "Exit status: 0 measured; 1 runtime failure; 2 usage error.")]
pub struct Options {
    /// Small run to check that everything works; its numbers mean little
    #[arg(long)]
    pub quick: bool,
    /// Also write the numbers to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Measure only this contestant (repeatable)
    #[arg(long = "contestant", value_name = "NAME")]
    contestants: Vec<Contestant>,
    /// Measure only this kind of traffic (repeatable)
    #[arg(long = "only", value_name = "WHAT")]
    only: Vec<What>,
    /// Number of idle sessions for the memory measurement
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..).map(|n| n as usize))]
    pub sessions: Option<usize>,
    /// Number of rounds of each CPU measurement; the median counts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..).map(|n| n as usize))]
    pub rounds: Option<usize>,
    /// Parts that the benchmark starts itself.
    #[command(subcommand)]
    pub part: Option<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Idle sessions.
    Memory,
    /// Messages and replies.
    Echo,
    /// Bytes in one direction.
    Bulk,
}

/// Parts that run as separate processes.
#[derive(Debug, Subcommand)]
pub enum Part {
    /// Server behind the proxies.
    #[command(hide = true)]
    Backend {
        /// Port on 127.0.0.1.
        port: u16,
    },
    /// Client of the proxies.
    #[command(hide = true)]
    Client(Load),
}

impl Options {
    /// The selected contestants; all by default.
    #[must_use]
    pub fn contestants(&self) -> Vec<Contestant> {
        let all = Contestant::value_variants();
        let chosen = |one: &&Contestant| self.contestants.is_empty() || self.contestants.contains(one);
        all.iter().filter(chosen).copied().collect()
    }

    #[must_use]
    pub fn wants(&self, what: What) -> bool {
        self.only.is_empty() || self.only.contains(&what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn everything_is_measured_by_default() {
        let all = Options::parse_from(["t3-bench"]);
        assert_eq!(all.contestants().len(), 5);
        assert!(all.wants(What::Memory) && all.wants(What::Bulk));
        let some = Options::parse_from([
            "t3-bench",
            "--contestant",
            "haproxy-1",
            "--contestant",
            "direct",
            "--only",
            "echo",
        ]);
        assert_eq!(some.contestants(), [Contestant::Direct, Contestant::HaproxyOne]);
        assert!(some.wants(What::Echo) && !some.wants(What::Memory));
    }

    #[test]
    fn zero_rounds_are_rejected() {
        assert!(Options::try_parse_from(["t3-bench", "--rounds", "0"]).is_err());
    }
}
