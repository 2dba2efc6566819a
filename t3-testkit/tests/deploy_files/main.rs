//! Deployed files and documented commands: dashboards, alert rules, configurations of shippers and
//! queries use only keys and metrics of the programs, commands only their options. Checks that need
//! other programs are in `host_deploy`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod alloy;
mod commands;
mod dashboard;
mod inhibit;
mod known;
mod logql;
mod old_query;
mod packaged_pages;
mod queries;
mod query_terms;
mod rules;
mod security_model;
mod shippers;
mod unit_file;
mod units;
