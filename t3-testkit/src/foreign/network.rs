//! The network namespace of a run: loopback, and few retransmissions, so that a client that has
//! vanished is noticed within seconds by every proxy, whatever keepalive it sets.

use std::{fs, process::Command};

use super::Proxy;
use crate::{
    error::{Attempt, Result, TestError},
    prerequisite, sys,
};

/// Retransmissions after which a connection times out: three seconds with the usual minimum RTO.
const RETRANSMISSIONS: &str = "3";
/// Of the current thread.
const SETTING: &str = "/proc/sys/net/ipv4/tcp_retries2";

/// Runs `work` on a thread in a new network namespace, which its threads and child processes share.
/// The proxies are installed before: the namespace has no way to a registry.
///
/// # Errors
/// Without root or one of the proxies, and those of `work`.
pub fn in_own_network<T: Send, E: From<TestError> + Send>(
    proxies: impl IntoIterator<Item = Proxy>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    prerequisite::root()?;
    for proxy in proxies {
        proxy.program()?;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter()?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn enter() -> Result<()> {
    sys::new_net().attempt(|| "make a network namespace".to_owned())?;
    let mut ip = Command::new("ip");
    let status = ip.args(["link", "set", "dev", "lo", "up"]).status();
    let status = status.attempt(|| "run ip (is iproute2 installed?)".to_owned())?;
    if !status.success() {
        let what = "loopback of a new network namespace".to_owned();
        return Err(TestError::Unexpected { what, got: status.to_string() });
    }
    fs::write(SETTING, RETRANSMISSIONS).attempt(|| format!("write {SETTING}"))
}
