//! Lines of other layers' logs, which hold what strangers sent: each parser takes any line, gives
//! the same answer twice, and keeps no query string.

#![no_main]

use libfuzzer_sys::fuzz_target;
use t3_record::edge::{BadLine, Reading, cloudflared, traefik};

/// Far from any text that a parser makes up itself.
const SECRET: &str = "QqSecretQq";

/// Whatever is said of the line, and with a ticket put into it.
fn told<T: std::fmt::Debug + PartialEq>(line: &str, at: usize, parse: fn(&str) -> Result<T, BadLine>) {
    assert_eq!(parse(line), parse(line));
    let at = (0..=at.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    let (before, after) = line.split_at(at);
    let mut reading = Reading::default();
    let line = format!("{before}wsTicket={SECRET}{after}");
    reading.take(&line, parse(&line));
    let said = format!("{reading:?}");
    assert!(line.matches(SECRET).count() > 1 || !said.contains(SECRET), "{said}");
}

fuzz_target!(|line: &str| {
    // Anywhere in the line, but for one line always at the same place.
    let at = line.bytes().fold(0_usize, |sum, byte| sum * 31 % 65_521 + usize::from(byte)) % (line.len() + 1);
    told(line, at, traefik::parse);
    told(line, at, cloudflared::parse);
});
