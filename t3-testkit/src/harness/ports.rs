//! Ports that are free and stay so: below the range from which the kernel takes ports for outgoing
//! connections.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

use crate::error::{Result, TestError};

const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// Where this process looks next; processes that run at the same time begin at different places.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on which nobody listens and that this process has not given out before.
///
/// # Errors
/// All are taken.
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
        remedy: "stop something".to_owned(),
    })
}
