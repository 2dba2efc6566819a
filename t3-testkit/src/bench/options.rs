//! Every flag of the benchmark, in this one place.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum as _, builder::TypedValueParser as _};

use super::{client::Load, contestant::Contestant};

/// Measures memory, CPU and throughput of t3-dispatch next to HAProxy.
#[derive(Debug, Parser)]
#[command(name = "t3-bench", max_term_width = 110)]
#[command(after_help = "Exit status: 0 measured; 1 something could not be measured; 2 bad usage.")]
pub struct Options {
    /// A small run: shows that everything works; its numbers mean little.
    #[arg(long)]
    pub quick: bool,
    /// Also write the numbers as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Measure only this one; may be given more than once.
    #[arg(long = "contestant", value_name = "NAME")]
    contestants: Vec<Contestant>,
    /// Measure only this; may be given more than once.
    #[arg(long = "only", value_name = "WHAT")]
    only: Vec<What>,
    /// Idle sessions in the measurement of memory.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..).map(|n| n as usize))]
    pub sessions: Option<usize>,
    /// How often each measurement of CPU is repeated; the median counts.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..).map(|n| n as usize))]
    pub rounds: Option<usize>,
    /// The parts that the benchmark starts itself.
    #[command(subcommand)]
    pub part: Option<Part>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Idle sessions.
    Memory,
    /// Messages and answers.
    Echo,
    /// Bytes in one direction.
    Bulk,
}

/// The parts that run as processes of their own.
#[derive(Debug, Subcommand)]
pub enum Part {
    /// What the proxies stand before.
    #[command(hide = true)]
    Backend {
        /// Port on 127.0.0.1.
        port: u16,
    },
    /// What connects to the proxies.
    #[command(hide = true)]
    Client(Load),
}

impl Options {
    /// Who takes part.
    #[must_use]
    pub fn contestants(&self) -> Vec<Contestant> {
        let all = Contestant::value_variants();
        let chosen = |one: &&Contestant| self.contestants.is_empty() || self.contestants.contains(one);
        all.iter().filter(chosen).copied().collect()
    }

    /// Whether this is measured.
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
    fn everything_is_measured_unless_told() {
        let all = Options::parse_from(["t3-bench"]);
        assert_eq!(all.contestants().len(), 4);
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
    fn nothing_is_not_a_number_of_rounds() {
        assert!(Options::try_parse_from(["t3-bench", "--rounds", "0"]).is_err());
    }
}
