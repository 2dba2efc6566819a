//! Response bodies and plain responses.

pub mod body;
