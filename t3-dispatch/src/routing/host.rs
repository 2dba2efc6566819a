//! Own host names (`--host`): a request for another host is not answered. Without this check, a web
//! page can reach t3-dispatch from a browser inside a trusted network by a name of its own (DNS
//! rebinding). Pure.

use std::{fmt, str::FromStr};

use http::{HeaderMap, Uri, header::HOST};

/// A name or address under which clients reach t3-dispatch, with or without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnHost {
    /// In lower case, without a trailing dot.
    name: String,
    /// Without one, every port matches.
    port: Option<u16>,
}

/// Reason for a 421.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the requested host is not one of this server; see --host")]
pub struct ForeignHost;

impl FromStr for OwnHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a host name or address such as t3.example.org");
        let (name, port) = split(text).ok_or_else(wrong)?;
        Ok(Self { name, port })
    }
}

impl fmt::Display for OwnHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Checks the host of a request: that of `Host` and of an absolute target. No own hosts permit
/// every host.
///
/// # Errors
/// [`ForeignHost`] is the reason for the 421.
pub fn check(own: &[OwnHost], uri: &Uri, headers: &HeaderMap) -> Result<(), ForeignHost> {
    if own.is_empty() {
        return Ok(());
    }
    let mut values = headers.get_all(HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(ForeignHost) };
    let target = uri.authority().is_none_or(|target| is_own(own, target.as_str()));
    let are_own = target && value.to_str().is_ok_and(|host| is_own(own, host));
    if are_own { Ok(()) } else { Err(ForeignHost) }
}

fn is_own(own: &[OwnHost], host: &str) -> bool {
    split(host).is_some_and(|(name, port)| {
        own.iter().any(|own| own.name == name && own.port.is_none_or(|own| Some(own) == port))
    })
}

/// Splits `NAME[:PORT]`; the name in lower case and without a trailing dot.
fn split(text: &str) -> Option<(String, Option<u16>)> {
    let (name, port) = match text.rsplit_once(':') {
        // The colons of an address in brackets are not those of a port.
        Some((name, port)) if !port.ends_with(']') => (name, Some(port.parse().ok()?)),
        _ => (text, None),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .is_some_and(|name| name.parse::<std::net::Ipv6Addr>().is_ok());
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (!name.is_empty() && (is_address || is_name)).then_some((name, port))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn checked(own: &[&str], target: &str, hosts: &[&str]) -> bool {
        let own: Vec<OwnHost> = own.iter().map(|own| own.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        check(&own, &target.parse().unwrap(), &headers).is_ok()
    }

    #[test]
    fn a_host_matches_without_case_trailing_dot_and_unless_given_port() {
        let own = ["T3.example.org", "10.0.10.10:3780", "[2001:db8::1]"];
        for host in [
            "t3.example.org",
            "t3.EXAMPLE.org:443",
            "t3.example.org.",
            "10.0.10.10:3780",
            "[2001:DB8::1]:3780",
        ] {
            assert!(checked(&own, "/", &[host]), "{host}");
        }
        for host in [
            "evil.example",
            "t3.example.org.evil.example",
            "xt3.example.org",
            "10.0.10.10",
            "10.0.10.10:80",
            "",
            "t3.example.org:x",
            "t3.example.org:443:443",
            "user@t3.example.org",
            "127.0.0.1:3780",
            ".",
        ] {
            assert!(!checked(&own, "/", &[host]), "{host}");
        }
        assert!(!checked(&own, "/", &[]));
        assert!(!checked(&own, "/", &["t3.example.org", "t3.example.org"]));
        assert!(checked(&own, "http://t3.example.org/", &["t3.example.org"]));
        assert!(!checked(&own, "http://evil.example/", &["t3.example.org"]));
        assert!(checked(&[], "/", &["anything at all"]), "no own hosts");
    }

    #[test]
    fn an_own_host_is_a_name_or_an_address() {
        for bad in ["", "http://t3", "t3/x", "t3 x", "*", "t3:99999", "[::1", "2001:db8::1", ":80", "."] {
            assert!(bad.parse::<OwnHost>().is_err(), "{bad}");
        }
        assert_eq!("T3.example.org.:80".parse::<OwnHost>().unwrap().to_string(), "t3.example.org:80");
    }
}
