//! Exactly one `ws close` per session, whatever is killed: which sessions have no record, and the
//! passes over the journal that decide it.

mod ledger;
pub mod scan;
pub mod spool;
