//! Log lines of other layers, which contain input of arbitrary clients: each parser accepts any
//! line, is deterministic and drops query strings.

#![no_main]

use libfuzzer_sys::fuzz_target;
use t3_record::edge::{BadLine, Reading, cloudflared, envoy, haproxy, logpush, traefik};

/// A text that no parser generates itself.
const SECRET: &str = "QqSecretQq";

/// Parses the line as it is, and with a ticket inserted.
fn check<T: std::fmt::Debug + PartialEq>(line: &str, at: usize, parse: fn(&str) -> Result<T, BadLine>) {
    assert_eq!(parse(line), parse(line));
    let at = (0..=at.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    let (before, after) = line.split_at(at);
    let mut reading = Reading::default();
    let line = format!("{before}wsTicket={SECRET}{after}");
    reading.take(&line, parse(&line));
    let text = format!("{reading:?}");
    assert!(line.matches(SECRET).count() > 1 || !text.contains(SECRET), "{text}");
}

fuzz_target!(|line: &str| {
    // Anywhere in the line, but always at the same place for equal lines.
    let at = line.bytes().fold(0_usize, |sum, byte| sum * 31 % 65_521 + usize::from(byte)) % (line.len() + 1);
    check(line, at, traefik::parse);
    check(line, at, cloudflared::parse);
    check(line, at, logpush::parse);
    check(line, at, envoy::parse);
    check(line, at, haproxy::parse);
});
