//! Free ports, below the range of ephemeral ports so that no outgoing connection takes them.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

use crate::error::{Result, TestError};

const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// The next candidate; concurrent processes start at different ports.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port without a listener that this process has not returned before.
pub fn free() -> Result<u16> {
    let span = LAST - FIRST;
    let start = u16::try_from(std::process::id() * 97 % u32::from(span)).unwrap_or(0);
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % span;
        let port = FIRST + (start + step) % span;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(TestError::Missing {
        what: format!("a free port from {FIRST} to {LAST}"),
        remedy: "stop other programs that listen there".to_owned(),
    })
}
