//! Journal access: journalctl, its export and JSON formats, options that select a journal.

pub mod access;
pub mod export_format;
pub mod journalctl;
pub mod json_entry;
pub mod source_args;
