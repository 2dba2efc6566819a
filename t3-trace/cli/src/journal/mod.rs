//! Journal access: journalctl, its export and JSON formats, options that select a journal.

pub mod access;
pub mod export_format;
pub mod journalctl;
pub mod json_entry;
pub mod source_args;
pub mod warnings;

/// Whether a journal was read completely; decides the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    Complete,
    /// journalctl ignored files or entries; its warnings are on stderr.
    Incomplete,
}

impl Completeness {
    /// Incomplete if there is any warning.
    #[must_use]
    pub fn of(warnings: &warnings::Warnings) -> Self {
        if warnings.is_empty() { Self::Complete } else { Self::Incomplete }
    }
}
