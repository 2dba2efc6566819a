//! Listener, connections and their shared state.

pub mod app;
pub mod connection;
pub mod listener;
pub mod overload;
pub mod router;
