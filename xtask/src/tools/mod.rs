//! Programs that xtask runs or installs, the folders they use, and its report.

pub mod apt_packages;
pub mod arch;
pub mod cargo;
pub mod ebpf;
pub mod guest_programs;
pub mod paths;
pub mod programs;
pub mod progress;
pub mod reasons;
pub mod remap;
pub mod report;
pub mod run;
pub mod sudo;
pub mod toolchain;
