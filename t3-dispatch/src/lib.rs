//! Reverse proxy: routes each request to the user's serve, relays WebSockets without changing a
//! byte, and writes one record per session that states who closed it and how.
//!
//! A session passes through these folders: `server` accepts the connection, `routing` finds the
//! user, `proxy` opens the WebSocket (`admission`, `upstream`), `relay` passes bytes and collects
//! facts, and `record` writes the record. The verdict is in `t3-record`.
//!
//! Imports between folders go one way; docs/ARCHITECTURE.md has the order.

pub(crate) mod admission;
pub mod cli;
pub mod config;
pub(crate) mod evidence;
pub mod fd_store;
pub mod http;
pub mod metrics;
pub mod pages;
pub mod pairing;
pub mod process;
pub(crate) mod proxy;
pub mod record;
pub mod relay;
pub(crate) mod response;
pub mod routing;
pub mod server;
pub(crate) mod settings;
pub mod shutdown;
pub mod sys;
pub(crate) mod upstream;
