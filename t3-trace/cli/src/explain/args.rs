//! Options of `t3-trace explain`.

use clap::{ArgGroup, Args};

use super::find::Selector;
use crate::{
    journal::source_args::JournalSource,
    layers::LayerArgs,
    present::args::CommonArgs,
    store::StoreArgs,
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
  t3-trace explain --from loki --user alice --at 14:10

The id is the value of conn= in each record; t3-trace closes --json shows it.

Exit status:
  0  explained
  1  no such close, or runtime failure, also without a journal
  2  usage or configuration error
  3  a part of the journal, or of Loki, could not be read (see stderr): the close or facts may be
     missing
  130  interrupted by Ctrl-C

Environment: NO_COLOR disables colours, unless --color says otherwise."
)]
pub struct ExplainArgs {
    /// Session ID.
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
    /// Ignore entries before this time.
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    pub since: Option<Moment>,
    #[command(flatten)]
    pub place: JournalSource,
    /// Print as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// The same as --color=never.
    #[arg(long)]
    pub plain: bool,
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub layers: LayerArgs,
}

impl ExplainArgs {
    /// Returns the selected close; clap requires at least one of the options.
    #[must_use]
    pub fn selector(&self) -> Selector {
        match (&self.conn, self.at, &self.user) {
            (Some(conn), ..) => Selector::Conn(conn.clone()),
            (None, Some(at), Some(user)) => Selector::Nearby { user: user.clone(), at },
            _ => Selector::Last { user: self.user.clone() },
        }
    }
}
