//! Routing table and identity headers.

pub mod host;
pub mod identity;
pub mod login;
pub mod table;
pub mod table_file;
pub mod trust;
