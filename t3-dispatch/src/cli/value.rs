//! Parsers of option values. Pure; each error follows the option's name.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr, time::Duration};

use ipnet::IpNet;
pub(super) use t3_config::value::{duration as time, duration_or_zero as time_or_none};

/// A file, or `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOption {
    Off,
    At(PathBuf),
}

impl FileOption {
    /// Path of the file, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::Off => None,
            Self::At(path) => Some(path),
        }
    }
}

impl FromStr for FileOption {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "off" { Self::Off } else { Self::At(text.into()) })
    }
}

impl fmt::Display for FileOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A network, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| format!("{text:?} is not a network such as 10.0.0.0/8 or an address"))
}

/// Evidence timeout of a record: long enough for a reply, short enough that the record appears in
/// time.
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
    fn the_evidence_timeout_has_bounds() {
        assert!(["10ms", "5s"].map(answer_time).iter().all(Result::is_ok));
        assert!(["0s", "9ms", "5001ms", "250"].map(answer_time).iter().all(Result::is_err));
    }
}
