//! Exports the records of t3-dispatch to an OpenTelemetry collector by OTLP over HTTP: each `ws
//! close` as a log record and as a span.
//!
//! A separate process: neither t3-dispatch nor the privileged daemon links OTLP. The journal is the
//! queue. Records are read only as fast as the collector accepts them, and the position in the
//! journal is saved after each accepted batch, so that nothing is lost over a restart of either.

#![warn(missing_docs)]

pub mod backoff;
pub mod cli;
pub mod cursor;
pub mod entry;
pub mod export;
pub mod ids;
pub mod mapping;
pub mod run;
pub mod source;
