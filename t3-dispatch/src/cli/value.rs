//! How the values of options are written. Pure; each function's error is a sentence that stands
//! behind the option's name.

use std::time::Duration;

use ipnet::IpNet;
pub(super) use t3_config::value::{duration as time, duration_or_zero as time_or_none};

/// A network, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| format!("{text:?} is neither a network like 10.0.0.0/8 nor an address"))
}

/// A time that a record may wait: long enough to be answered at all, not so long that nobody sees
/// the record when it matters.
pub(super) fn answer_time(text: &str) -> Result<Duration, String> {
    let time = time_or_none(text)?;
    if (Duration::from_millis(10)..=Duration::from_secs(5)).contains(&time) {
        Ok(time)
    } else {
        Err("expected a duration from 10ms to 5s".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_waited_for_within_bounds() {
        assert!(["10ms", "5s"].map(answer_time).iter().all(Result::is_ok));
        assert!(["0s", "9ms", "5001ms", "250"].map(answer_time).iter().all(Result::is_err));
    }
}
