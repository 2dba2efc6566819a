//! Response bodies and plain responses.

pub mod body;
pub mod refused;
pub mod text;
