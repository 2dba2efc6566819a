//! Routing table and identity headers.

pub mod identity;
pub mod table;
pub mod table_file;
