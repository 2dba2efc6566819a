//! What is shipped beside the programs, as the tools that will read it see it: Grafana's grammar of
//! LogQL, Prometheus' of PromQL, and promtool, which also evaluates the alerts, and systemd of the
//! units. Needs node, npm and Debian's packages `prometheus` and `systemd`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod alerts;
mod grammars;
#[path = "../deploy_files/queries.rs"]
#[allow(dead_code, reason = "its commands are checked elsewhere")]
mod queries;
mod systemd;
#[path = "../deploy_files/unit_file.rs"]
#[allow(dead_code, reason = "most of it is checked elsewhere")]
mod unit_file;
