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
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| format!("{text:?} is not a network such as 10.0.0.0/8 or an address"))?;
    if network.trunc() != network {
        let meant = canonical(network.trunc());
        return Err(format!("{text:?} has bits of a host: use {meant} for the network or the address alone"));
    }
    Ok(canonical(network))
}

/// Returns a network of IPv4-mapped addresses as the IPv4 network.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let v4 = mapped.addr().to_ipv4_mapped().zip(mapped.prefix_len().checked_sub(96));
    v4.and_then(|(address, bits)| IpNet::new(address.into(), bits).ok()).unwrap_or(network)
}

/// The domain of a login, in lower case.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_part) {
        return Err(format!("{text:?} is not a domain such as example.org"));
    }
    Ok(text.to_ascii_lowercase())
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
    fn a_network_has_no_bits_of_a_host_and_mapped_ones_are_ipv4() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("::1", "::1/128"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), expected, "{text}");
        }
        for (text, what) in [
            ("10.0.0.1/8", "use 10.0.0.0/8"),
            ("10.0.0.255/31", "use 10.0.0.254/31"),
            ("2001:db8::1/64", "use 2001:db8::/64"),
            ("::ffff:10.1.0.0/104", "use 10.0.0.0/8"),
            ("::ffff:0.0.0.0/90", "has bits of a host"),
            ("10.0.0.0/99", "is not a network"),
            ("10.0.0", "is not a network"),
            ("", "is not a network"),
        ] {
            let error = network(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn a_domain_is_compared_in_lower_case() {
        assert_eq!(domain("Example.ORG").unwrap(), "example.org");
        assert!(["", "@example.org", "a@b", "a b", "*"].map(domain).iter().all(Result::is_err));
    }

    #[test]
    fn the_evidence_timeout_has_bounds() {
        assert!(["10ms", "5s"].map(answer_time).iter().all(Result::is_ok));
        assert!(["0s", "9ms", "5001ms", "250"].map(answer_time).iter().all(Result::is_err));
    }
}
