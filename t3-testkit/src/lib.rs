//! Test support: a stand-in for `t3 serve`, a raw WebSocket client that can die in every way, a
//! journald of the test's own, the whole stack as child processes, and the catalogue of faults with
//! the truth about each.
//!
//! Never part of what is shipped. Everything it starts ends with it: children carry a parent-death
//! signal, namespaces and cgroups go with their last process or on drop.

pub mod autobahn;
pub mod bench;
pub mod chaos;
pub mod chromium;
pub mod client;
pub mod demo;
pub mod error;
pub mod fake_serve;
pub mod faults;
pub mod frame;
pub mod handshake;
pub mod harness;
pub mod journald;
pub mod package_test;
pub mod prerequisite;
pub mod screens;
pub mod soak;
pub mod sys;
pub mod tmux;
pub mod wait;

pub use error::{Result, TestError};
