//! A knock at the evidence socket, in a role: what an unprivileged user gets to hear.

use std::path::Path;

use t3_record::wire::{Role, SOCKET_PATH};

use crate::{
    error::{Result, TestError},
    harness::trace_hello,
};

/// Knocks as whoever this process runs as.
pub fn knock(role: &str) -> Result<()> {
    let role = match role {
        "dispatch" => Role::Dispatch,
        "subscriber" => Role::Subscriber,
        other => {
            return Err(TestError::Unexpected {
                what: "dispatch or subscriber".to_owned(),
                got: other.to_owned(),
            });
        }
    };
    trace_hello(Path::new(SOCKET_PATH), role)
}
