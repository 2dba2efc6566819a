//! Reads records from the journal: journalctl, its export and JSON formats, the options that name a
//! journal.

pub mod access;
pub mod export_format;
pub mod journalctl;
pub mod json_entry;
pub mod source_args;
