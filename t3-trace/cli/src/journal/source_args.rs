//! Options that select the journal; shared by `closes` and `explain`.

use std::path::PathBuf;

use clap::Args;

/// Selection of the journal; by default that of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct JournalSource {
    /// Only this boot: 0 (the current one, also without a value), -1, or an id.
    #[arg(long, value_name = "ID", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub boot: Option<String>,
    /// Journal file to read (repeatable).
    #[arg(long, conflicts_with = "directory")]
    pub file: Vec<PathBuf>,
    /// Directory with journal files to read.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

impl JournalSource {
    /// Whether it is the journal of this host, not a copy.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.file.is_empty() && self.directory.is_none()
    }
}
