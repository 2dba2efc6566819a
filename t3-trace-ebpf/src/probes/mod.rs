//! One file for each family of hooks. The functions' names are what the loader looks for.

mod accept;
mod close;
mod exit;
pub mod message;
mod reset;
mod signal;
mod state;
mod trouble;
