//! Access to the evidence socket in a role, as an unprivileged user.

use std::path::Path;

use t3_record::wire::{Role, SOCKET_PATH};

use crate::{
    error::{Result, TestError},
    harness::trace_hello,
};

/// Sends Hello as the current user; an error if it is rejected.
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
