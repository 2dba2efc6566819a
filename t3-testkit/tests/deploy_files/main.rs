//! What is shipped beside the programs, and what the pages tell people to type: dashboards, alert
//! rules, shippers' configurations, queries and commands ask only for what the programs emit and
//! take. What needs other programs to be checked is in `host_deploy`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod alloy;
mod asked;
mod commands;
mod dashboard;
mod known;
mod logql;
mod old_query;
mod queries;
mod rules;
mod shippers;
mod unit_file;
mod units;
