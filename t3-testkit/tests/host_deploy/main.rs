//! Deployed files, checked by other tools: queries by the grammars of LogQL and PromQL, alerts by
//! promtool and Prometheus, units by systemd. Needs node, npm, Debian's packages `prometheus` and
//! `systemd`, and `cargo xtask build`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod alerts;
mod grammars;
mod prometheus;
#[path = "../deploy_files/queries.rs"]
#[allow(dead_code, reason = "commands are checked in deploy_files")]
mod queries;
mod systemd;
#[path = "../deploy_files/unit_file.rs"]
#[allow(dead_code, reason = "most files are checked in deploy_files")]
mod unit_file;
