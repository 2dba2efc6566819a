//! HTTP rules without I/O to serve.

pub mod guard;
pub mod headers;
pub mod request_id;
