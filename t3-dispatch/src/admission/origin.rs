//! Origin check of upgrades (RFC 6455 section 10.2, RFC 6454). Pure.
//!
//! A browser sends cookies with the upgrade whatever page opens it, and no same-origin policy
//! applies: without this check any web site could use the session of its visitor. A client that is
//! not a browser sends no Origin or a forged one; this check does not concern it.

use std::{fmt, str::FromStr};

use http::{HeaderMap, HeaderValue, header};

const FORWARDED_HOST: &str = "x-forwarded-host";

/// Origin that may open WebSockets in addition to the host's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// Every origin: the check is off.
    Any,
    Origin(String),
}

impl FromStr for AllowedOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let canonical = text.to_ascii_lowercase();
        let wrong = format!("{text:?} is not an origin such as https://t3.example.org, or *");
        let origin = Origin::parse(&canonical).ok_or(wrong)?;
        Ok(Self::Origin(origin.canonical()))
    }
}

/// Upgrade from a page of another origin: 403.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginMismatch {
    origin: String,
    host: String,
}

impl fmt::Display for OriginMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, host } = self;
        write!(f, "origin {origin:?} is not allowed to open a WebSocket of {host:?}; see --allowed-origin")
    }
}

/// Checks the Origin of an upgrade from a trusted proxy against its host.
///
/// Host and X-Forwarded-Host both count: a page cannot set either of them.
///
/// # Errors
/// [`OriginMismatch`].
pub fn check(headers: &HeaderMap, allowed: &[AllowedOrigin]) -> Result<(), OriginMismatch> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(first) = origins.next() else { return Ok(()) };
    if allowed.contains(&AllowedOrigin::Any) {
        return Ok(());
    }
    let text = first.to_str().unwrap_or_default().to_ascii_lowercase();
    let origin = if origins.next().is_none() { Origin::parse(&text) } else { None };
    let Some(origin) = origin else { return Err(mismatch(headers, first)) };
    let listed = allowed.contains(&AllowedOrigin::Origin(origin.canonical()));
    if listed || hosts(headers).any(|host| origin.matches_host(host)) {
        return Ok(());
    }
    Err(mismatch(headers, first))
}

fn hosts(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let forwarded = headers.get_all(FORWARDED_HOST).iter();
    forwarded
        .chain(headers.get_all(header::HOST))
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn mismatch(headers: &HeaderMap, origin: &HeaderValue) -> OriginMismatch {
    OriginMismatch {
        origin: truncate(&String::from_utf8_lossy(origin.as_bytes())),
        host: truncate(hosts(headers).next().unwrap_or_default()),
    }
}

/// Truncates to a length that is sufficient to identify the value in a log.
fn truncate(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Scheme, host and port in lower case.
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// Returns `None` also for `null`, the opaque origin.
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme_char = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if scheme.is_empty()
            || !scheme.bytes().all(is_scheme_char)
            || authority.contains(['/', '@', '?', '#'])
        {
            return None;
        }
        let (host, port) = split(authority)?;
        Some(Self { scheme, host, port: port.or_else(|| default_port(scheme)) })
    }

    fn canonical(&self) -> String {
        let Self { scheme, host, .. } = self;
        match self.port {
            Some(port) if default_port(scheme) != Some(port) => format!("{scheme}://{host}:{port}"),
            _ => format!("{scheme}://{host}"),
        }
    }

    /// TLS ends at a proxy on the path, so a Host without a port matches the default port of either
    /// scheme.
    fn matches_host(&self, host: &str) -> bool {
        if default_port(self.scheme).is_none() {
            return false;
        }
        let Some((host, port)) = split(host) else { return false };
        host.eq_ignore_ascii_case(self.host) && self.port == port.or_else(|| default_port(self.scheme))
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

/// Splits into host and port. An IPv6 address keeps its brackets.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_address = authority.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match authority[after_address..].rfind(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(after_address + colon);
            (host, Some(port[1..].parse().ok()?))
        }
        None => (authority, None),
    };
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(pairs: &[(&'static str, &str)], allowed: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        let allowed: Vec<AllowedOrigin> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        check(&headers, &allowed).is_ok()
    }

    #[test]
    fn a_page_of_the_same_host_and_port_passes_with_any_scheme() {
        for (host, origin, expected) in [
            ("t3.example.org", "https://t3.example.org", true),
            ("t3.example.org", "http://t3.example.org", true),
            ("T3.Example.org", "https://t3.example.ORG", true),
            ("t3.example.org:443", "https://t3.example.org", true),
            ("t3.example.org", "https://t3.example.org:443", true),
            ("127.0.0.1:3780", "http://127.0.0.1:3780", true),
            ("[::1]:3780", "http://[::1]:3780", true),
            ("[::1]", "http://[::1]", true),
            ("t3.example.org", "https://t3.example.org:8443", false),
            ("t3.example.org:3780", "https://t3.example.org", false),
            ("t3.example.org:80", "https://t3.example.org", false),
            ("t3.example.org", "https://evil.example", false),
            ("t3.example.org", "https://t3.example.org.evil.example", false),
            ("t3.example.org", "https://evil.example/t3.example.org", false),
            ("t3.example.org", "https://evil.example@t3.example.org", false),
            ("t3.example.org", "https://xt3.example.org", false),
            ("t3.example.org", "t3://t3.example.org", false),
            ("t3.example.org", "null", false),
            ("t3.example.org", "", false),
            ("t3.example.org", "t3.example.org", false),
            ("t3.example.org", "https://", false),
            ("t3.example.org", "https://t3.example.org:99999", false),
            ("", "https://", false),
        ] {
            assert_eq!(passes(&[("host", host), ("origin", origin)], &[]), expected, "{origin} at {host}");
        }
    }

    #[test]
    fn no_origin_passes_and_two_origins_do_not() {
        assert!(passes(&[("host", "t3")], &[]));
        let twice = [("host", "t3"), ("origin", "https://t3"), ("origin", "https://t3")];
        assert!(!passes(&twice, &[]));
    }

    #[test]
    fn the_forwarded_host_counts_in_addition_to_the_host() {
        let origin = ("origin", "https://t3.example.org");
        let inner = ("host", "10.0.0.5:3780");
        assert!(passes(&[inner, origin, ("x-forwarded-host", "t3.example.org")], &[]));
        assert!(passes(&[inner, origin, ("x-forwarded-host", "t3.example.org, inner")], &[]));
        assert!(!passes(&[inner, origin, ("x-forwarded-host", "other.example.org")], &[]));
        assert!(!passes(&[inner, origin], &[]));
    }

    #[test]
    fn listed_origins_pass() {
        let desktop = [("host", "t3"), ("origin", "t3://App")];
        assert!(passes(&desktop, &["https://a.example", "t3://app"]));
        assert!(!passes(&desktop, &["https://a.example"]));
        let other = [("host", "t3"), ("origin", "https://a.example")];
        assert!(passes(&other, &["https://A.example:443"]));
        assert!(!passes(&other, &["http://a.example"]), "the scheme must match, too");
        assert!(passes(&[("host", "t3"), ("origin", "null")], &["*"]));
        for wrong in ["", "a.example", "https://", "https://a/b", "null"] {
            assert!(wrong.parse::<AllowedOrigin>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_mismatch_names_origin_and_host_truncated() {
        let mut headers = HeaderMap::new();
        headers.insert("host", "t3".parse().unwrap());
        headers.insert("origin", format!("https://evil\" x={}", "y".repeat(5000)).parse().unwrap());
        let text = check(&headers, &[]).unwrap_err().to_string();
        assert!(text.contains(r#"https://evil\" x="#) && text.contains("\"t3\""), "{text}");
        assert!(text.len() < 300, "{}", text.len());
    }
}
