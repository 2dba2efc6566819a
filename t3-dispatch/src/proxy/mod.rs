//! One request to serve: plain HTTP or a WebSocket upgrade.

pub mod http;
pub mod request;
pub mod websocket;
