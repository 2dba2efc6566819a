//! Which journal is read: the options that every command which looks back has. Reads nothing.

use std::path::PathBuf;

use clap::Args;

/// This machine's journal, unless it says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct JournalSource {
    /// Only this boot: 0 (the current one, also without a value), -1, or an id.
    #[arg(long, value_name = "ID", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub boot: Option<String>,
    /// Read this journal file (again for more of them).
    #[arg(long, conflicts_with = "directory")]
    pub file: Vec<PathBuf>,
    /// Read the journal files of this directory.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

impl JournalSource {
    /// The journal is this machine's own, and not a copy.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.file.is_empty() && self.directory.is_none()
    }
}
