//! Presentation of a record: its line, the texts of verdicts and chains, JSON, units; the options
//! of every command, and their end by Ctrl-C.

pub mod answer;
pub mod args;
pub mod chain_text;
pub mod close_line;
pub mod interrupt;
pub mod json;
pub mod text;
pub mod units;
pub mod verdict_text;
pub mod via;
