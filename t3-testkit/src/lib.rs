//! Test support: a fake `t3 serve`, a raw WebSocket client with every kind of end, a private
//! journald, the programs as child processes, and the fault catalogue with expected records.
//!
//! Not part of a release. Everything it starts ends with it: children have a parent-death signal,
//! namespaces and cgroups end with their last process or on drop.

pub mod autobahn;
pub mod bench;
pub mod chaos;
pub mod chromium;
pub mod client;
pub mod deflate;
pub mod demo;
pub mod error;
pub mod fake_serve;
pub mod faults;
pub mod foreign;
pub mod frame;
pub mod handshake;
pub mod harness;
pub mod journald;
pub mod keeper;
pub mod kill_matrix;
pub mod outside;
pub mod package_test;
pub mod peer_script;
pub mod prerequisite;
pub mod restart;
pub mod screens;
pub mod soak;
pub mod sys;
pub mod tmux;
pub mod trial;
pub mod wait;

pub use error::{Result, TestError};
