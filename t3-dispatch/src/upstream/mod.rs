//! Connections to serve.

pub mod connect;
pub mod pool;
pub mod request_body;
pub mod response_check;
pub mod serve_owner;
pub mod serve_socket;
