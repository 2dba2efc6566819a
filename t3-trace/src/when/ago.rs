//! Lengths before now: `2hours`, `10m`, `1h30m`. Pure.

use super::{Moment, words::number};

/// The moment that lies so long before `secs`; blanks are gone already.
pub(super) fn before(secs: u64, length: &str) -> Option<Moment> {
    let mut rest = length;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count = number(&rest[..digits], 1..=9)?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        sum = sum.checked_add(count.checked_mul(unit(&rest[..letters])?)?)?;
        rest = &rest[letters..];
    }
    if length.is_empty() { None } else { Some(Moment::whole(secs.checked_sub(sum)?, 1)) }
}

/// Seconds of a unit. `m` is a minute, as in the other lengths of these commands; months have no
/// length.
pub(super) fn unit(name: &str) -> Option<u64> {
    Some(match name {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 604_800,
        _ => return None,
    })
}
