//! The commands, one file each, with their options.

pub mod autobahn;
mod background;
pub mod bench;
pub mod build;
pub mod demo;
pub mod docs;
pub mod faults;
pub mod mutants;
pub mod package;
pub mod release;
pub mod rules;
pub mod soak;
pub mod test;
mod testkit_program;
pub mod trial;
pub mod vm_test;
