//! Options that select the store of records.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::selector::Selector;
use crate::time::duration;

/// Where records are read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// The journal of this host, or a copy of another.
    #[default]
    Journal,
    /// Loki, with the journals of all hosts that ship to it.
    Loki,
}

/// Selection of the store.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store of the records")]
pub struct StoreArgs {
    /// Where to read records: the journal of this host, or Loki with those of all hosts (--loki);
    /// without --since, loki means the last 30 days.
    #[arg(long, value_name = "STORE", value_enum, default_value = "journal")]
    pub from: StoreKind,
    /// With --from loki: only records of this host, its label host (repeatable); without it those
    /// of all hosts.
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// Loki selector of the journals; their lines also need the labels unit and host
    /// (docs/RUNBOOK.md).
    #[arg(
        long,
        value_name = "SELECTOR",
        env = "T3_TRACE_JOURNAL_SELECTOR",
        default_value = "{job=\"devvm-journal\"}"
    )]
    pub journal_selector: Selector,
    /// Timeout for each request for records to Loki, for example 30s.
    #[arg(
        long,
        value_name = "TIME",
        env = "T3_TRACE_LOKI_TIMEOUT",
        value_parser = duration,
        default_value = "30s"
    )]
    pub loki_timeout: Duration,
    /// Limit of lines read from Loki; where it cuts the answer, the exit status is 3.
    #[arg(long, value_name = "NUMBER", env = "T3_TRACE_LOKI_LIMIT", default_value = "1000000")]
    pub loki_limit: u64,
}

impl Default for StoreArgs {
    fn default() -> Self {
        Self {
            from: StoreKind::Journal,
            host: Vec::new(),
            journal_selector: Selector::default(),
            loki_timeout: Duration::from_secs(30),
            loki_limit: 1_000_000,
        }
    }
}
