//! Flags of `t3-chaos`, in this one place.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::error::{Attempt, Result};

/// Opens and closes WebSockets in random ways through t3-dispatch, kills t3-trace meanwhile, and
/// holds every record against what happened to that session.
#[derive(Debug, Parser)]
#[command(name = "t3-chaos", max_term_width = 110)]
#[command(after_help = "Exit status: 0 every record is right; 1 not, or it could not be run; 2 bad usage.")]
pub struct Options {
    /// Sessions in all: most as fast as the host allows, some at a steady pace.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(500..=10_000_000))]
    pub sessions: u32,
    /// How often t3-trace is killed and started again meanwhile.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub kills: u32,
    /// Sessions open at once. More make queues, not speed: where dispatch has no CPU left, evidence
    /// comes too late for everybody.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    pub at_once: u32,
    /// Sessions a second where the pace is steady.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub pace: u32,
    /// Users, each with a serve.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub users: u32,
    /// Options of `t3-soak` as well.
    #[command(flatten)]
    pub common: Common,
}

/// Options of `t3-chaos` and `t3-soak`.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Seed of an earlier run, to repeat its plans.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Also write the numbers as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The parts that it starts itself.
    #[command(subcommand)]
    pub part: Option<Part>,
}

impl Common {
    /// The given seed, or a random one.
    pub(crate) fn seed(&self) -> u64 {
        let random = || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| u64::from(since.subsec_nanos()));
        self.seed.unwrap_or_else(random)
    }

    /// Writes a report to the file of `--json`.
    pub(crate) fn write_json(&self, report: &impl serde::Serialize) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let what = || format!("write {}", path.display());
        let text = serde_json::to_vec_pretty(report).map_err(std::io::Error::other).attempt(what)?;
        std::fs::write(path, text).attempt(what)
    }
}

/// The parts that run as processes of their own.
#[derive(Debug, Subcommand)]
pub enum Part {
    /// What a user's WebSockets end at.
    #[command(hide = true)]
    Serve {
        /// Port on 127.0.0.1.
        port: u16,
    },
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
