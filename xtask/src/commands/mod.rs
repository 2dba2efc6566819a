//! The commands, one file each.

pub mod bench;
pub mod build;
pub mod demo;
pub mod faults;
pub mod soak;
pub mod test;
pub mod vm_test;
