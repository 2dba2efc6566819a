//! HTTP rules without I/O to serve.

pub mod guard;
pub mod headers;
pub mod navigation;
pub mod peer;
pub mod request_id;
