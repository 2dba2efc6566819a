//! A rule of the host's own firewall (nftables), removed on drop.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use super::netns::run;
use crate::error::Result;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A table with one rule for received packets.
#[derive(Debug)]
pub struct Firewall {
    table: String,
}

impl Firewall {
    /// Adds a rule, in the language of nft(8).
    pub fn new(rule: &str) -> Result<Self> {
        let table = format!("t3test{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let rules = format!(
            "add table inet {table} ; add chain inet {table} input {{ type filter hook input priority 0 ; }} ; \
             add rule inet {table} input {rule}"
        );
        run(Command::new("nft"), &rules)?;
        Ok(Self { table })
    }

    /// Whether this host has nftables.
    pub fn is_possible() -> Result<()> {
        Self::new("tcp dport 0 reject with tcp reset").map(drop)
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        let _ = run(Command::new("nft"), &format!("delete table inet {}", self.table));
    }
}
