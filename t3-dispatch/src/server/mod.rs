//! Listener, connections and what they share.

pub mod app;
pub mod connection;
pub mod listener;
pub mod router;
