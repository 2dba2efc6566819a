//! Options of `t3-chaos`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::error::{Attempt, Result};

/// Opens and closes WebSockets in random ways through t3-dispatch, kills t3-trace meanwhile, and
/// compares every record with the session
#[derive(Debug, Parser)]
#[command(name = "t3-chaos", max_term_width = 110)]
#[command(
    after_help = "Exit status: 0 every record is right; 1 a mismatch or a runtime failure; 2 usage error."
)]
pub struct Options {
    /// Total number of sessions: most as fast as possible, some at a steady pace
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(500..=10_000_000))]
    pub sessions: u32,
    /// Number of times that t3-trace is killed and started again
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub kills: u32,
    /// Number of times that t3-dispatch, t3-trace or both are killed and started again
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub crashes: u32,
    /// Concurrent sessions; with too many, dispatch lacks CPU and evidence comes too late
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    pub at_once: u32,
    /// Sessions per second at the steady pace
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub pace: u32,
    /// Number of users, each with a serve
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub users: u32,
    #[command(flatten)]
    pub common: Common,
}

/// Options of `t3-chaos` and `t3-soak`.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Seed of an earlier run, to repeat its plans
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// File for the numbers as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(subcommand)]
    pub part: Option<Part>,
}

impl Common {
    /// The seed from the command line, or a random one.
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

/// Hidden commands for child processes.
#[derive(Debug, Subcommand)]
pub enum Part {
    /// The serve of a user.
    #[command(hide = true)]
    Serve {
        /// Port on 127.0.0.1
        port: u16,
    },
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
