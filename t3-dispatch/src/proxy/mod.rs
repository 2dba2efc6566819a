//! One request to serve: plain HTTP or a WebSocket upgrade.

pub mod extensions;
pub mod http;
pub mod request;
pub mod resume;
pub mod websocket;
