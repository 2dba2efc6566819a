//! What is shipped beside the programs, as the tools that will read it see it: Grafana's grammar of LogQL, Prometheus' of PromQL, and
//! promtool, which also evaluates the alerts. Needs node, npm and Debian's package `prometheus`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod alerts;
mod grammars;
#[path = "../deploy_files/queries.rs"]
#[allow(dead_code, reason = "its commands are checked elsewhere")]
mod queries;
