//! Loki and Prometheus as servers: address, credentials, and one bounded GET. Used by `layers` and
//! `store`.

pub mod args;
pub mod http;
pub mod loki;
pub mod source;

pub use args::LokiArgs;
