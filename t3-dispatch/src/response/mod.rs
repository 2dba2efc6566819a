//! Response bodies and plain responses.

pub mod body;
pub mod observed;
pub mod refused;
pub mod text;
