//! Options of `t3-trace closes`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use t3_record::{Segment, Verdict, wire::SOCKET_PATH};

use crate::{
    journal::source_args::JournalSource,
    present::{args::CommonArgs, via::ViaFilter},
    server::LokiArgs,
    store::StoreArgs,
    time::{Moment, duration, local::moment},
};

/// `t3-trace closes`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  t3-trace closes --since '2 hours ago'
  t3-trace closes --since 14:00 --until 14:20 --user alice --short 120s
  t3-trace closes --since yesterday --segment serve --csv > closes.csv
  t3-trace closes --via direct --since today
  t3-trace closes --reconcile --since today
  t3-trace closes --from loki --since 14:00 --incidents
  t3-trace closes --from loki --host devvm2 --since yesterday --summary

Exit status:
  0  the journal, or Loki, was read completely, also when nothing matched
  1  runtime failure, also without a journal
  2  usage or configuration error
  3  a part could not be read (see stderr), a limit was reached, or the journal of a host does not
     arrive in Loki: closes may be missing
  130  interrupted by Ctrl-C: the output is not complete

Environment: NO_COLOR disables colours, unless --color says otherwise.")]
pub struct ClosesArgs {
    /// Start of the range: 14:10, "2 hours ago", -2h, yesterday, "2026-11-24 14:10", @1700000000.
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    pub since: Option<Moment>,
    /// End of the range (formats as for --since).
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    pub until: Option<Moment>,
    /// Only this user.
    #[arg(long)]
    pub user: Option<String>,
    /// Only these verdicts, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub verdict: Vec<Verdict>,
    /// Only these segments, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub segment: Vec<Segment>,
    /// Sessions of t3-dispatch, other connections to watched ports, or all; --csv has one kind.
    #[arg(long, value_enum, default_value = "dispatch", value_name = "WHICH")]
    pub via: ViaFilter,
    /// Only sessions shorter than this, for example 120s, 2m or 500ms.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub short: Option<Duration>,
    #[command(flatten)]
    pub place: JournalSource,
    /// First let t3-trace write the records of sessions that ended without one, for example in a
    /// power loss; it does so itself at its start and once per minute.
    #[arg(long, conflicts_with_all = ["file", "directory"])]
    pub reconcile: bool,
    /// Path of the evidence socket, for --reconcile.
    #[arg(long, env = "T3_TRACE_SOCKET", value_name = "PATH", default_value = SOCKET_PATH)]
    pub socket: PathBuf,
    /// Print each record as one JSON object, without a summary; `time` is the time of the close
    /// (RFC 3339).
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print CSV with a header line (RFC 4180), without a summary.
    #[arg(long)]
    pub csv: bool,
    /// Only the summary.
    #[arg(long, conflicts_with_all = ["json", "csv", "no_summary"])]
    pub summary: bool,
    /// Only the incidents, the worst first: closes of several users or five and more, within one
    /// second, with the same edge (Cloudflare data centre), version of serve and verdict.
    #[arg(long, conflicts_with_all = ["json", "csv", "summary", "no_summary"])]
    pub incidents: bool,
    /// Only the table.
    #[arg(long)]
    pub no_summary: bool,
    /// The same as --color=never.
    #[arg(long)]
    pub plain: bool,
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub server: LokiArgs,
}

impl ClosesArgs {
    /// End of the range. A time of day that is still to come is today's if the range starts today.
    #[must_use]
    pub fn until(&self) -> Option<Moment> {
        let until = self.until?;
        Some(self.since.map_or(until, |since| until.at_or_after(since)))
    }

    /// Whether the summary counts connections without a request, which have no user and no verdict.
    #[must_use]
    pub const fn counts_attempts(&self) -> bool {
        self.summarises()
            && self.via.has_sessions()
            && self.user.is_none()
            && self.verdict.is_empty()
            && self.segment.is_empty()
            && self.short.is_none()
    }

    #[must_use]
    pub const fn summarises(&self) -> bool {
        !(self.json || self.csv || self.no_summary || self.incidents)
    }

    /// Whether a table for a person is printed, with more than the records.
    #[must_use]
    pub const fn has_table(&self) -> bool {
        self.lists() && !(self.json || self.csv)
    }

    /// Whether a table or lines of records are printed.
    #[must_use]
    pub const fn lists(&self) -> bool {
        !(self.summary || self.incidents)
    }
}
