//! The command line of `t3-trace explain`. Reads and decides nothing.

use clap::{ArgGroup, Args};

use super::find::Selector;
use crate::{
    journal::source_args::JournalSource,
    layers::LayerArgs,
    time::{Moment, local::moment},
};

/// `t3-trace explain`.
#[derive(Debug, Default, Args)]
#[command(
    group(ArgGroup::new("which").required(true).args(["conn", "at", "last"])),
    after_help = "Examples:
  t3-trace explain k3v9q0a1b2c3d
  t3-trace explain --user alice --at 14:10
  t3-trace explain --last --user alice
  t3-trace explain --directory /mnt/devvm/var/log/journal k3v9q0a1b2c3d --json

The id stands behind conn= in each record: t3-trace closes --json shows it, as does the log in Loki.

Exit status:
  0  explained
  1  there is no such close, or something failed
  2  wrong usage

Environment: NO_COLOR for no colours; there are none anyway where the output is no terminal."
)]
pub struct ExplainArgs {
    /// The session's id.
    #[arg(value_name = "CONN")]
    pub conn: Option<String>,
    /// Only this user's closes.
    #[arg(long, conflicts_with = "conn")]
    pub user: Option<String>,
    /// The user's close nearest to this time: 14:10, "2 hours ago", "2026-11-24 14:10".
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true, requires = "user")]
    pub at: Option<Moment>,
    /// The last close.
    #[arg(long)]
    pub last: bool,
    /// Look at nothing before this time.
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    pub since: Option<Moment>,
    /// Which journal.
    #[command(flatten)]
    pub place: JournalSource,
    /// The page as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// No colours.
    #[arg(long)]
    pub plain: bool,
    /// Where the other layers' words are to be had.
    #[command(flatten)]
    pub layers: LayerArgs,
}

impl ExplainArgs {
    /// Which close is meant. The command line has made sure that something says so.
    #[must_use]
    pub fn ask(&self) -> Selector {
        match (&self.conn, self.at, &self.user) {
            (Some(conn), ..) => Selector::Conn(conn.clone()),
            (None, Some(at), Some(user)) => Selector::Nearby { user: user.clone(), at },
            _ => Selector::Last { user: self.user.clone() },
        }
    }
}
