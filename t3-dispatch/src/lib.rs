//! Reverse proxy: routes each request to the user's serve, relays WebSockets without changing a
//! byte, and writes one record per session that states who closed it and how.
//!
//! The path of a session through the folders: `server` accepts, `proxy` finds the user (`routing`)
//! and opens the WebSocket (`admission`, `upstream`), `relay` passes bytes and collects facts, and
//! `record` writes the record. `t3-record` judges the facts; this crate never does.
//!
//! Imports between folders go one way; docs/ARCHITECTURE.md has the order.

pub mod admission;
pub mod cli;
pub mod config;
pub mod evidence;
pub mod http;
pub mod metrics;
pub mod pages;
pub mod pairing;
pub mod process;
pub mod proxy;
pub mod record;
pub mod relay;
pub mod response;
pub mod routing;
pub mod server;
pub mod settings;
pub mod shutdown;
pub mod sys;
pub mod upstream;
